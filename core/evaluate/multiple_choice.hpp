// Four-choice questions by log-likelihood (WMDP, MMLU), as lm-evaluation-harness scores them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/evaluate/row_scores.hpp"
#include "core/model/transformer.hpp"
#include "core/text/tokenizer.hpp"

namespace efface {

struct ChoiceQuestion {
  std::string subject;  ///< as the prompt says it: "biology", "high school physics"
  std::string question;
  std::vector<std::string> choices;  ///< four
  int64_t answer = -1;               ///< 0 to 3; -1 where the file has no key
};

/// MMLU's CSV (question, four choices, answer as 0-3 or A-D; quoted fields may hold line breaks; a header row
/// or none): one file, or all "*.csv" of a folder in the order of their names. The subject is the file's name
/// without "_test", "_dev" or "_val". Throws Error(data) with file and line.
std::vector<ChoiceQuestion> read_mmlu(const std::filesystem::path& file_or_folder);

/// WMDP's JSON: an array, or lines, of {question, choices, answer}, or of {category, scenario} where the
/// scenario ends with "Choices: ['...', ...]". The subject is read from `category` or the file's name
/// (bio, chem, cyber).
std::vector<ChoiceQuestion> read_wmdp(const std::filesystem::path& file);

/// The whole prompt up to "Answer:" (docs/metrics.md).
std::string choice_prompt(const ChoiceQuestion& question);

struct ChoiceReport {
  std::vector<int64_t> predictions;  ///< argmax of the choices' log-probabilities, a question each
  std::vector<std::vector<double>> log_probabilities;
  double accuracy = 0;  ///< over questions with a key
  std::map<std::string, double> accuracy_by_subject;
  int64_t counted = 0;
};

/// Continuations " A" .. " D", tokenised together with the prompt and split at the prompt's length; a prompt
/// longer than the model's positions loses its left end. No special tokens, no chat form. The report is the
/// same on every rank.
ChoiceReport score_choices(const Transformer& model, const Tokenizer& tokenizer,
                           const std::vector<ChoiceQuestion>& questions, int64_t tokens_per_pass,
                           const Progress& progress = {});

}  // namespace efface
