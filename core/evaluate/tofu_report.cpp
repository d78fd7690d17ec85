// TOFU's published figures and the files other tools read them from; declared in tofu.hpp.
#include "core/evaluate/tofu_aggregates.hpp"
#include "core/text/json_field.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

using Field = double TofuScore::*;

double mean(const std::vector<TofuScore>& scores, Field field) {
  return mean_of(scores, [field](const TofuScore& score) { return score.*field; });
}

nlohmann::json metric(double aggregate, const std::vector<TofuScore>& scores, Field field, const char* key) {
  nlohmann::json by_index = nlohmann::json::object();
  for (size_t i = 0; i < scores.size(); ++i) by_index[std::to_string(i)] = {{key, scores[i].*field}};
  return {{"agg_value", aggregate}, {"value_by_index", std::move(by_index)}};
}

nlohmann::json mean_metric(const std::vector<TofuScore>& scores, Field field, const char* key) {
  return metric(mean(scores, field), scores, field, key);
}

void add_kept_set(nlohmann::json& json, const std::string& name, const std::vector<TofuScore>& scores,
                  bool normalized) {
  const std::string probability = name + (normalized ? "_Q_A_Prob_normalised" : "_Q_A_Prob");
  json[probability] =
      mean_metric(scores, normalized ? &TofuScore::normalized_probability : &TofuScore::probability, "prob");
  json[name + "_Q_A_ROUGE"] = mean_metric(scores, &TofuScore::rouge_recall, "rougeL_recall");
  json[name + "_Truth_Ratio"] = metric(kept_truth_ratio(scores), scores, &TofuScore::truth_ratio, "score");
}

}  // namespace

double tofu_model_utility(const TofuReport& report) {
  std::vector<double> values;
  const auto add = [&](const std::vector<TofuScore>& scores, Field probability) {
    values.push_back(mean(scores, probability));
    values.push_back(mean(scores, &TofuScore::rouge_recall));
    values.push_back(kept_truth_ratio(scores));
  };
  add(report.retain, &TofuScore::probability);
  add(report.real_authors, &TofuScore::normalized_probability);
  add(report.world_facts, &TofuScore::normalized_probability);
  return harmonic_mean(values);
}

nlohmann::json tofu_eval_json(const TofuReport& report) {
  nlohmann::json json;
  json["forget_Q_A_Prob"] = mean_metric(report.forget, &TofuScore::probability, "prob");
  json["forget_Q_A_ROUGE"] = mean_metric(report.forget, &TofuScore::rouge_recall, "rougeL_recall");
  json["forget_truth_ratio"] =
      metric(forget_truth_ratio(report.forget), report.forget, &TofuScore::truth_ratio, "score");
  json["exact_memorization"] = mean_metric(report.forget, &TofuScore::exact_memorization, "score");
  json["extraction_strength"] = mean_metric(report.forget, &TofuScore::extraction_strength, "score");
  add_kept_set(json, "retain", report.retain, false);
  add_kept_set(json, "ra", report.real_authors, true);
  add_kept_set(json, "wf", report.world_facts, true);
  json["model_utility"] = {{"agg_value", report.model_utility}};
  if (report.forget_quality) json["forget_quality"] = {{"agg_value", *report.forget_quality}};
  return json;
}

nlohmann::json tofu_summary_json(const TofuReport& report) {
  nlohmann::json summary;
  const nlohmann::json metrics = tofu_eval_json(report);
  for (const auto& [name, metric] : metrics.items()) summary[name] = metric["agg_value"];
  return summary;
}

std::vector<double> read_truth_ratios(const std::filesystem::path& eval_json) {
  const nlohmann::json json = parse_json_file(eval_json);
  const JsonField values = JsonField(json, eval_json)["forget_truth_ratio"]["value_by_index"];
  std::vector<double> ratios;
  for (const auto& [index, value] : values.value().items()) {
    const JsonField score = values[index]["score"];
    if (!score.value().is_number()) score.fail("a number is expected");
    ratios.push_back(score.value().get<double>());
  }
  if (ratios.empty()) values.fail("holds no values");
  return ratios;
}

}  // namespace efface
