// What each rank knows of a shared result, brought together.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "distributed/communicator.hpp"

namespace efface {

/// The fields of every rank's object, the same on each; objects under one name are merged, of other values
/// the last rank's stays. Collective.
nlohmann::json merged_over_ranks(const Communicator& group, const nlohmann::json& mine);

/// Runs `action` on every rank: what() of all that failed, by rank, the same on each; none when all went
/// well. Collective, but for what `action` does.
std::vector<std::string> errors_of_ranks(const Communicator& group, const std::function<void()>& action);

}  // namespace efface
