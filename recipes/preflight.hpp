// What is wrong with a recipe once its data and its model's configuration are known: found before any work,
// by `efface validate` and at the start of a run.
#pragma once

#include <string>
#include <vector>

#include "core/model/config.hpp"
#include "recipes/training_rows.hpp"

namespace efface {

/// Throws Error(recipe) or Error(data) for what would end the run later: layers that the model does not have,
/// a role without rows, a record that lacks what its role needs, an export that exports nothing. Returns one
/// line for each thing that the recipe asks for and that would do nothing.
std::vector<std::string> check_before_work(const Recipe& recipe, const ModelConfig& config,
                                           const RowMaker& maker, const RunData& data);

}  // namespace efface
