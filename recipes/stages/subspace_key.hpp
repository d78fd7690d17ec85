// Keys of the stages that unlearning leans on.
#pragma once

#include "recipes/stages/workspace.hpp"

namespace efface {

nlohmann::json covariance_key(const Workspace& work);
/// Null when nothing is projected.
nlohmann::json nullspace_key(const Workspace& work);
nlohmann::json answers_key(const Workspace& work);
nlohmann::json unlearn_key(const Workspace& work);

}  // namespace efface
