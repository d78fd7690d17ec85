// trace: which layers' feed-forward networks hold the forget facts.
#include "core/trace/causal_trace.hpp"
#include "distributed/error.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {
namespace {

bool wanted(const Workspace& work) {
  if (work.recipe.trace.when == "always") return true;
  return work.recipe.trace.when == "auto" && find_method(work.recipe.method).needs_window &&
         work.recipe.train.layers.empty();
}

nlohmann::json settings(const Workspace& work) {
  const TraceSection& trace = work.recipe.trace;
  return {{"model", work.model_key()},
          {"forget", source_key(work.recipe.data.forget)},
          {"draws", trace.draws},
          {"max_facts", trace.max_facts},
          {"noise_scale", trace.noise_scale},
          {"restore_window", trace.restore_window},
          {"unlearning_window", trace.unlearning_window},
          {"exclude", trace.exclude},
          {"seed", work.recipe.train.seed}};
}

/// The bare prompt where it holds the subject, else the sentence begun.
std::vector<TraceFact> facts_of(const Workspace& work, std::vector<std::string>& answers) {
  std::vector<TraceFact> facts;
  for (const auto& record : work.data.forget) {
    if (static_cast<int64_t>(facts.size()) == work.recipe.trace.max_facts) break;
    const std::string& prompt = record.bare_prompt.empty() ? record.answer_prefix : record.bare_prompt;
    if (record.subject.empty() || prompt.find(record.subject) == std::string::npos) continue;
    facts.push_back({prompt, record.subject});
    answers.push_back(record.answer);
  }
  if (facts.empty())
    throw Error(ErrorClass::data, work.recipe.data.forget.file.string() + ": no record can be traced",
                "tracing needs `subject` and a `bare_prompt` that contains it; or give 'train.layers'");
  return facts;
}

nlohmann::json run(Workspace& work) {
  std::vector<std::string> answers;
  const auto facts = facts_of(work, answers);
  TraceOptions options;
  options.draws = work.recipe.trace.draws;
  options.noise_scale = work.recipe.trace.noise_scale;
  options.restore_window = static_cast<int>(work.recipe.trace.restore_window);
  options.unlearning_window = static_cast<int>(work.recipe.trace.unlearning_window);
  options.exclude.assign(work.recipe.trace.exclude.begin(), work.recipe.trace.exclude.end());
  options.seed = static_cast<uint64_t>(work.recipe.train.seed);
  const TraceResult result =
      causal_trace(work.model(), work.tokenizer(), facts, answers, options,
                   [&](int64_t done, int64_t total) { work.progress.update(done, total); });
  return {{"effect", result.effect},
          {"effect_standard_error", result.effect_standard_error},
          {"clean_probability", result.clean_probability},
          {"corrupted_probability", result.corrupted_probability},
          {"facts_used", result.facts_used},
          {"facts_unknown", result.facts_unknown},
          {"restore_window", result.restore_window},
          {"window", {result.window_begin, result.window_end}},
          {"unrestricted_window", {result.unrestricted_begin, result.unrestricted_end}},
          {"exclude", work.recipe.trace.exclude}};
}

std::string layers_text(const nlohmann::json& window) {
  return std::to_string(window[0].get<int>()) + "-" + std::to_string(window[1].get<int>() - 1);
}

std::string line(const nlohmann::json& summary) {
  std::string text = "layers " + layers_text(summary["window"]) + " of " +
                     std::to_string(summary["effect"].size()) + ", from " +
                     std::to_string(summary["facts_used"].get<int64_t>()) + " facts";
  if (summary["window"] != summary["unrestricted_window"])
    text += " (without trace.exclude: " + layers_text(summary["unrestricted_window"]) + ")";
  return text;
}

}  // namespace

Stage trace_stage() { return {"trace", wanted, settings, run, line}; }

}  // namespace efface
