// The stages of a run in their order, each done once.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "distributed/communicator.hpp"
#include "recipes/recipe.hpp"

namespace efface {

struct PipelineOptions {
  std::string until;              ///< the last stage that runs; empty: all
  std::vector<std::string> redo;  ///< stages done again though they are done, and with them what reads them
  std::string command;            ///< as typed, for the report
};

/// Every stage's name, in order.
std::vector<std::string> stage_names();

/// Runs what is not done, in recipe.output.folder; the same call goes on where an earlier one stopped. Prints
/// one line a stage and, at the end, the table of before and after. Collective over the world.
void run_pipeline(const Recipe& recipe, const Communicator& world, const PipelineOptions& options = {});

/// What was measured before and after, as a table for a terminal; empty when nothing was.
std::string before_after_table(const nlohmann::json& before, const nlohmann::json& after);

}  // namespace efface
