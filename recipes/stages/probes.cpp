// before and evaluate: the same questions, asked of the model as it was and as it became.
#include <set>

#include "core/evaluate/fact_probes.hpp"
#include "recipes/stages/benchmarks.hpp"
#include "recipes/stages/model_update.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {
namespace {

std::vector<ProbeGroup> probe_groups(const Workspace& work) {
  std::vector<ProbeGroup> groups;
  const auto add = [&](const std::string& name, const std::vector<Record>& records, bool is_forget) {
    ProbeGroup group{name, {}, is_forget};
    for (const auto& record : records)
      if (!record.question.empty()) group.records.push_back(record);
    if (!group.records.empty()) groups.push_back(std::move(group));
  };
  add("forget", work.data.forget, true);
  add("retain", work.data.retain, false);
  for (const auto& [name, records] : work.data.probes) add(name, records, false);
  return groups;
}

std::vector<TokenRow> perplexity_rows(const Workspace& work) {
  std::vector<TokenRow> rows;
  int64_t left = work.recipe.evaluate.perplexity_tokens;
  for (auto& row : work.rows().windows(work.data.text_perplexity, work.recipe.nullspace.window)) {
    left -= static_cast<int64_t>(row.ids.size());
    if (left < 0) break;
    rows.push_back(std::move(row));
  }
  return rows;
}

nlohmann::json scores_json(const ProbeScores& scores) {
  nlohmann::json json = {
      {"questions", std::max({scores.probability.size(), scores.refuses.size(), scores.safe_exact.size()})}};
  if (!scores.probability.empty()) {
    json["probability"] = scores.probability;
    json["first_is_argmax"] = scores.first_is_argmax;
    json["geometric_mean"] = scores.geometric_mean();
    json["arithmetic_mean"] = scores.arithmetic_mean();
    json["argmax_share"] = scores.argmax_share();
  }
  if (!scores.safe_exact.empty()) json["safe_share"] = scores.safe_share();
  if (!scores.refuses.empty()) {
    json["refusal_share"] = scores.refusal_share();
    json["whole_refusal_share"] = scores.whole_refusal_share();
  }
  return json;
}

ProbeScores scores_from(const nlohmann::json& json) {
  ProbeScores scores;
  scores.probability = json.at("probability").get<std::vector<double>>();
  scores.first_is_argmax = json.at("first_is_argmax").get<std::vector<bool>>();
  return scores;
}

nlohmann::json samples_json(const Workspace& work, const std::vector<ProbeGroup>& groups,
                            const ProbeReport& report) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& group : groups) {
    const auto found = report.samples.find(group.name);
    if (found == report.samples.end()) continue;
    for (size_t i = 0; i < found->second.size() && i < group.records.size(); ++i)
      json[group.name].push_back({{"question", group.records[i].question},
                                  {"expected", group.records[i].answer},
                                  {"answer", found->second[i]}});
  }
  return json;
}

nlohmann::json measure(Workspace& work, const Transformer& model, const std::string& stage) {
  const auto groups = probe_groups(work);
  ProbeOptions options;
  std::set<std::string> refusals;
  for (const auto& record : work.data.forget)
    if (!record.safe_response.empty()) refusals.insert(record.safe_response);
  options.refusal_texts.assign(refusals.begin(), refusals.end());
  options.samples = work.recipe.evaluate.samples;
  options.sample_tokens = work.recipe.evaluate.sample_tokens;
  options.tokens_per_pass = work.recipe.evaluate.tokens_per_pass;
  const ProbeReport report =
      run_probes(model, work.tokenizer(), work.chat(), groups, perplexity_rows(work), options,
                 [&](int64_t done, int64_t total) { work.progress.update(done, total); });
  nlohmann::json scores = nlohmann::json::object();
  for (const auto& [name, group] : report.scores) scores[name] = scores_json(group);
  nlohmann::json summary = {
      {"scores", scores}, {"samples", samples_json(work, groups, report)}, {"perplexity", report.perplexity}};
  const nlohmann::json benchmarks = measure_benchmarks(work, model, stage);
  if (!benchmarks.empty()) summary["benchmarks"] = benchmarks;
  return summary;
}

nlohmann::json evaluation_key(const Workspace& work) {
  const EvaluateSection& evaluate = work.recipe.evaluate;
  nlohmann::json probes = nlohmann::json::object();
  for (const auto& [name, source] : evaluate.probes) probes[name] = source_key(source);
  const SafeResponseSection& safe = work.recipe.safe_response;
  nlohmann::json responses = {safe.source, safe.text_template, safe.parts, file_key(safe.file)};
  if (safe.source == "file") responses.push_back(work.recipe.train.seed);  // it deals the file's lines
  return {{"model", work.model_key()},
          {"forget", source_key(work.recipe.data.forget)},
          {"retain", source_key(work.recipe.data.retain)},
          {"probes", probes},
          {"safe_response", responses},
          {"perplexity",
           {file_key(work.recipe.data.text_perplexity), evaluate.perplexity_tokens,
            work.recipe.nullspace.window}},
          {"samples", {evaluate.samples, evaluate.sample_tokens}},
          {"benchmarks", benchmarks_key(work)}};
}

/// The result, and what it is compared with.
std::vector<std::string> read_after(const Workspace& work) {
  std::vector<std::string> stages = {"unlearn"};
  if (work.recipe.evaluate.before) stages.emplace_back("before");
  return stages;
}

nlohmann::json run_before(Workspace& work) { return measure(work, work.model(), "before"); }

nlohmann::json compare(const nlohmann::json& before, const nlohmann::json& after) {
  nlohmann::json forgetting = nlohmann::json::object();
  for (const auto& [name, scores] : after["scores"].items()) {
    if (name.rfind("forget/", 0) != 0 || !scores.contains("probability") || !before["scores"].contains(name))
      continue;
    const ForgettingRatio ratio =
        compare_forgetting(scores_from(before["scores"][name]), scores_from(scores));
    forgetting[name] = {{"median", ratio.median},
                        {"geometric", ratio.geometric},
                        {"share_down_100x", ratio.share_down_100x},
                        {"share_down_10x", ratio.share_down_10x},
                        {"argmax_share_after", ratio.argmax_share_after}};
  }
  return forgetting;
}

nlohmann::json run_after(Workspace& work) {
  Transformer model = work.take_model();
  ModelUpdate::read(work.run.stage_folder("unlearn") / "update.safetensors").merge_into(model);
  nlohmann::json summary = measure(work, model, "evaluate");
  if (work.recipe.evaluate.before) summary["forgetting"] = compare(work.run.summary("before"), summary);
  return summary;
}

std::string line(const nlohmann::json& summary) {
  std::string text = std::to_string(summary["scores"].size()) + " question forms";
  if (summary["scores"].contains("forget/trained") &&
      summary["scores"]["forget/trained"].contains("geometric_mean"))
    text += ", p(forget) " + number_text(summary["scores"]["forget/trained"]["geometric_mean"]);
  if (summary["perplexity"].get<double>() > 0) text += ", perplexity " + number_text(summary["perplexity"]);
  return text;
}

}  // namespace

Stage before_stage() {
  return {"before", [](const Workspace& work) { return work.recipe.evaluate.before; }, evaluation_key,
          run_before, line};
}

Stage evaluate_stage() {
  return {"evaluate",     [](const Workspace& work) { return work.recipe.evaluate.after; },
          evaluation_key, run_after,
          line,           read_after};
}

}  // namespace efface
