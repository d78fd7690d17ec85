// Published benchmarks among what is measured before and after: TOFU, WMDP, MMLU.
#pragma once

#include "recipes/stages/workspace.hpp"

namespace efface {

/// {"tofu": TOFU_SUMMARY, "wmdp": {"accuracy", "counted", "by_subject"}, "mmlu": the same}, of those the
/// recipe asks for. TOFU_EVAL.json and TOFU_SUMMARY.json are written into the stage's folder. Collective.
nlohmann::json measure_benchmarks(Workspace& work, const Transformer& model, const std::string& stage);
/// Null when there are none.
nlohmann::json benchmarks_key(const Workspace& work);

}  // namespace efface
