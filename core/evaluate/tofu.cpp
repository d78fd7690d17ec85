#include "core/evaluate/tofu.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/evaluate/kolmogorov_smirnov.hpp"
#include "core/evaluate/text_overlap.hpp"
#include "core/evaluate/tofu_aggregates.hpp"
#include "core/text/dataset.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr double kTiny = 1e-10;  // OpenUnlearning's, below its ratios
constexpr const char* kLlama3System = "You are a helpful assistant.";

double mean_loss(const RowScore& score) {
  return -score.log_probability() / static_cast<double>(score.log_probabilities.size());
}

/// Memorisation of the answer's own tokens: the last `ending` labels are the end of the turn.
void score_memorization(const RowScore& answer, int64_t ending, TofuScore& score) {
  const int64_t n = static_cast<int64_t>(answer.is_argmax.size()) - ending;
  if (n <= 0) return;
  const auto end = answer.is_argmax.begin() + n;
  score.exact_memorization =
      static_cast<double>(std::count(answer.is_argmax.begin(), end, true)) / static_cast<double>(n);
  int64_t k = n;
  while (k > 0 && answer.is_argmax[k - 1]) --k;
  score.extraction_strength = 1.0 - static_cast<double>(k) / static_cast<double>(n);
}

/// `rows`: answer, paraphrased answer, perturbed answers.
TofuScore likelihood_scores(const RowScore* rows, size_t perturbed, int64_t ending) {
  TofuScore score;
  score.probability = std::exp(-mean_loss(rows[0]));
  score_memorization(rows[0], ending, score);
  if (perturbed == 0) return score;
  double wrong_probability = 0, wrong_loss = 0;
  for (size_t i = 0; i < perturbed; ++i) {
    const double loss = mean_loss(rows[2 + i]);
    wrong_probability += std::exp(-loss);
    wrong_loss += loss / static_cast<double>(perturbed);
  }
  score.normalized_probability = score.probability / (score.probability + wrong_probability + kTiny);
  score.truth_ratio = std::exp(-wrong_loss) / (std::exp(-mean_loss(rows[1])) + kTiny);
  return score;
}

void score_generation(const Transformer& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                      const std::vector<TofuQuestion>& questions, const TofuOptions& options,
                      const Progress& progress, std::vector<TofuScore>& scores) {
  std::vector<std::vector<int64_t>> prompts;
  for (const TofuQuestion& question : questions)
    prompts.push_back(tokenizer.encode(chat.render({{"user", question.question}}, true)));
  const int64_t stop = chat.turn_end().empty() ? -1 : tokenizer.id_of(chat.turn_end());
  const auto answers =
      generate_answers(model, prompts, options.new_tokens, stop, options.prompts_per_pass, progress);
  for (size_t q = 0; q < questions.size(); ++q) {
    scores[q].generated = tokenizer.decode(answers[q], true);
    scores[q].rouge_recall = rouge_l(questions[q].answer, scores[q].generated, true).recall;
  }
}

}  // namespace

std::vector<TofuQuestion> read_tofu(const std::filesystem::path& file) {
  std::vector<TofuQuestion> questions;
  for (const Record& record : read_records(file)) {
    TofuQuestion question{record.question, record.answer, record.answer, {}};
    const auto& raw = record.raw;
    if (record.answer.empty()) throw Error(ErrorClass::data, record.source + ": has no answer");
    if (raw.contains("paraphrased_answer") && raw["paraphrased_answer"].is_string())
      question.paraphrased_answer = raw["paraphrased_answer"].get<std::string>();
    if (raw.contains("perturbed_answer") && raw["perturbed_answer"].is_array())
      for (const auto& answer : raw["perturbed_answer"])
        if (answer.is_string()) question.perturbed_answers.push_back(answer.get<std::string>());
    questions.push_back(std::move(question));
  }
  return questions;
}

std::vector<TofuScore> score_tofu(const Transformer& model, const Tokenizer& tokenizer,
                                  const ChatTemplate& chat, const std::vector<TofuQuestion>& questions,
                                  const TofuOptions& options, const Progress& progress) {
  std::vector<TokenRow> rows;
  const auto add = [&](const std::string& question, const std::string& answer) {
    rows.push_back(chat_row(tokenizer, chat, question, "", answer, true));
  };
  for (const TofuQuestion& question : questions) {
    add(question.question, question.answer);
    add(question.question, question.paraphrased_answer);
    for (const std::string& wrong : question.perturbed_answers) add(question.question, wrong);
  }
  const std::vector<RowScore> results = score_rows(model, rows, options.tokens_per_pass, progress);
  const int64_t ending = chat.turn_end().empty() ? 0 : 1;
  std::vector<TofuScore> scores;
  const RowScore* next = results.data();
  for (const TofuQuestion& question : questions) {
    scores.push_back(likelihood_scores(next, question.perturbed_answers.size(), ending));
    next += 2 + question.perturbed_answers.size();
  }
  if (options.new_tokens > 0) score_generation(model, tokenizer, chat, questions, options, progress, scores);
  return scores;
}

double forget_truth_ratio(const std::vector<TofuScore>& scores) {
  return mean_of(scores,
                 [](const TofuScore& s) { return std::min(s.truth_ratio, 1 / (s.truth_ratio + kTiny)); });
}

double kept_truth_ratio(const std::vector<TofuScore>& scores) {
  return mean_of(scores, [](const TofuScore& s) { return std::max(0.0, 1 - s.truth_ratio); });
}

double harmonic_mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) {
    if (value <= 0) return 0;
    sum += 1 / value;
  }
  return values.empty() ? 0 : static_cast<double>(values.size()) / sum;
}

TofuReport evaluate_tofu(const Transformer& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                         const std::filesystem::path& folder, const std::string& split,
                         const std::vector<double>& retain_truth_ratios, const TofuOptions& options,
                         const Progress& progress) {
  const ChatTemplate form = chat.name().starts_with("llama3") ? chat.with_system(kLlama3System) : chat;
  const auto score = [&](const std::string& name) {
    return score_tofu(model, tokenizer, form, read_tofu(folder / (name + ".json")), options, progress);
  };
  TofuReport report;
  report.forget = score(split + "_perturbed");
  report.retain = score("retain_perturbed");
  report.real_authors = score("real_authors_perturbed");
  report.world_facts = score("world_facts_perturbed");
  report.model_utility = tofu_model_utility(report);
  if (!retain_truth_ratios.empty()) {
    std::vector<double> ratios;
    for (const TofuScore& one : report.forget) ratios.push_back(one.truth_ratio);
    report.forget_quality = kolmogorov_smirnov(std::move(ratios), retain_truth_ratios).p_value;
  }
  return report;
}

}  // namespace efface
