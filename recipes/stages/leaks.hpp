// What an update does to the retained tokens: the constraint table.
#pragma once

#include "recipes/stages/model_update.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {

/// {"modules": [{"module", "of_update", "of_output", "bound", "heldout_of_update", "heldout_of_output",
/// "rounded_of_update", "rounded_of_output", "sink"}], "worst_of_bound"}: on the tokens of the covariance and
/// on held-out ones; rounded: W0 + dW rounded to the export's dtype. Empty when there is no covariance.
/// Collective.
nlohmann::json measure_constraint(Workspace& work, const ModelUpdate& update);

}  // namespace efface
