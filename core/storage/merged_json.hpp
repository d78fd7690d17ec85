// What each rank knows of a shared result, brought together.
#pragma once

#include <nlohmann/json.hpp>

#include "distributed/communicator.hpp"

namespace efface {

/// The fields of every rank's object, the same on each; objects under one name are merged, of other values
/// the last rank's stays. Collective.
nlohmann::json merged_over_ranks(const Communicator& group, const nlohmann::json& mine);

}  // namespace efface
