#include "recipes/stages/benchmarks.hpp"

#include "core/evaluate/multiple_choice.hpp"
#include "core/evaluate/tofu.hpp"

namespace efface {
namespace {

std::function<void(int64_t, int64_t)> shown(Workspace& work) {
  return [&work](int64_t done, int64_t total) { work.progress.update(done, total); };
}

nlohmann::json choices(Workspace& work, const Transformer& model, std::vector<ChoiceQuestion> questions) {
  const int64_t most = work.recipe.evaluate.benchmark_max;
  if (most > 0 && static_cast<int64_t>(questions.size()) > most) questions.resize(static_cast<size_t>(most));
  const ChoiceReport report =
      score_choices(model, work.tokenizer(), questions, work.recipe.evaluate.tokens_per_pass, shown(work));
  return {
      {"accuracy", report.accuracy}, {"counted", report.counted}, {"by_subject", report.accuracy_by_subject}};
}

nlohmann::json tofu(Workspace& work, const Transformer& model, const std::string& stage) {
  const EvaluateSection& evaluate = work.recipe.evaluate;
  TofuOptions options;
  options.tokens_per_pass = evaluate.tokens_per_pass;
  const std::vector<double> retain =
      evaluate.tofu_retain_log.empty() ? std::vector<double>() : read_truth_ratios(evaluate.tofu_retain_log);
  const TofuReport report = evaluate_tofu(model, work.tokenizer(), work.chat(), evaluate.tofu,
                                          evaluate.tofu_split, retain, options, shown(work));
  const nlohmann::json summary = tofu_summary_json(report);
  if (work.mesh.is_root()) {
    const auto folder = work.run.stage_folder(stage);
    write_text_file(folder / "TOFU_EVAL.json", tofu_eval_json(report).dump(1) + "\n");
    write_text_file(folder / "TOFU_SUMMARY.json", summary.dump(2) + "\n");
  }
  return summary;
}

/// Names and sizes: these folders are large.
nlohmann::json folder_key(const std::filesystem::path& folder) {
  if (folder.empty()) return nullptr;
  if (!std::filesystem::is_directory(folder)) return file_key(folder);
  std::map<std::string, uintmax_t> sizes;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_regular_file()) sizes[entry.path().filename()] = entry.file_size();
  return sizes;
}

}  // namespace

nlohmann::json measure_benchmarks(Workspace& work, const Transformer& model, const std::string& stage) {
  const EvaluateSection& evaluate = work.recipe.evaluate;
  nlohmann::json all = nlohmann::json::object();
  if (!evaluate.tofu.empty()) all["tofu"] = tofu(work, model, stage);
  if (!evaluate.wmdp.empty()) all["wmdp"] = choices(work, model, read_wmdp(evaluate.wmdp));
  if (!evaluate.mmlu.empty()) all["mmlu"] = choices(work, model, read_mmlu(evaluate.mmlu));
  return all;
}

nlohmann::json benchmarks_key(const Workspace& work) {
  const EvaluateSection& evaluate = work.recipe.evaluate;
  if (evaluate.tofu.empty() && evaluate.wmdp.empty() && evaluate.mmlu.empty()) return nullptr;
  return {folder_key(evaluate.tofu), evaluate.tofu_split,       file_key(evaluate.tofu_retain_log),
          folder_key(evaluate.wmdp), folder_key(evaluate.mmlu), evaluate.benchmark_max};
}

}  // namespace efface
