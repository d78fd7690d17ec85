// TOFU (Maini et al. 2024) as OpenUnlearning computes it: probability, truth ratio, ROUGE, model utility and
// forget quality (docs/metrics.md).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/evaluate/row_scores.hpp"
#include "core/model/transformer.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"

namespace efface {

struct TofuQuestion {
  std::string question, answer;
  std::string paraphrased_answer;  ///< the answer itself where the file has none
  std::vector<std::string> perturbed_answers;
};

/// One of TOFU's files (JSON lines); questions without perturbed answers are read too.
std::vector<TofuQuestion> read_tofu(const std::filesystem::path& file);

/// With l the mean negative log-likelihood of an answer's tokens, end of turn included, and p = exp(-l).
struct TofuScore {
  double probability = 0;             ///< p(answer)
  double normalized_probability = 0;  ///< p(answer) / (p(answer) + sum of p(perturbed))
  double truth_ratio = 0;             ///< exp(-mean l(perturbed)) / (p(paraphrased) + 1e-10)
  double rouge_recall = 0;            ///< ROUGE-L recall, stemmed, of the greedy answer
  double exact_memorization = 0;      ///< share of answer tokens whose teacher-forced argmax is right
  /// 1 - k/n, k the first token from which every argmax is right; 0 where the last one is wrong
  /// (OpenUnlearning gives 1/n there). Both without the end of the turn.
  double extraction_strength = 0;
  std::string generated;
};

struct TofuOptions {
  int64_t tokens_per_pass = 4096;
  int64_t new_tokens = 200;  ///< 0: no answers are generated, ROUGE stays 0
  int64_t prompts_per_pass = 32;
};

/// A score a question, the same on every rank.
std::vector<TofuScore> score_tofu(const Transformer& model, const Tokenizer& tokenizer,
                                  const ChatTemplate& chat, const std::vector<TofuQuestion>& questions,
                                  const TofuOptions& options, const Progress& progress = {});

/// mean(min(R, 1/R)): 1 where right and wrong answers are equally likely.
double forget_truth_ratio(const std::vector<TofuScore>& scores);
/// mean(max(0, 1 - R)): 1 where right answers are far likelier.
double kept_truth_ratio(const std::vector<TofuScore>& scores);
/// 0 where any value is.
double harmonic_mean(const std::vector<double>& values);

struct TofuReport {
  std::vector<TofuScore> forget, retain, real_authors, world_facts;
  double model_utility = 0;  ///< harmonic mean of {probability, ROUGE, truth ratio} x the last three
  std::optional<double> forget_quality;  ///< p-value against the retain-only model's truth ratios
};

/// `folder` holds TOFU's files; `split` is "forget01", "forget05" or "forget10". Chat templates of Llama 3
/// get the system line "You are a helpful assistant.". `retain_truth_ratios` empty: no forget quality.
TofuReport evaluate_tofu(const Transformer& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                         const std::filesystem::path& folder, const std::string& split,
                         const std::vector<double>& retain_truth_ratios, const TofuOptions& options,
                         const Progress& progress = {});

/// The per-question truth ratios of a TOFU_EVAL.json, ours or OpenUnlearning's.
std::vector<double> read_truth_ratios(const std::filesystem::path& eval_json);

/// What OpenUnlearning writes as TOFU_EVAL.json (each metric with value_by_index) and TOFU_SUMMARY.json.
nlohmann::json tofu_eval_json(const TofuReport& report);
nlohmann::json tofu_summary_json(const TofuReport& report);

}  // namespace efface
