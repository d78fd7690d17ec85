#include "core/evaluate/multiple_choice.hpp"

#include <algorithm>

namespace efface {
namespace {

constexpr int64_t kChoices = 4;
constexpr const char* kLetters[kChoices] = {"A", "B", "C", "D"};

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

/// One row a choice: the prompt, then the choice's letter as labels.
std::vector<TokenRow> choice_rows(const Tokenizer& tokenizer, const ChoiceQuestion& question, int64_t limit) {
  const std::string prompt = choice_prompt(question);
  const auto context = static_cast<int64_t>(tokenizer.encode(prompt).size());
  std::vector<TokenRow> rows;
  for (const char* letter : kLetters) {
    TokenRow row{tokenizer.encode(prompt + " " + letter), context};
    const auto excess = static_cast<int64_t>(row.ids.size()) - limit;
    if (limit > 0 && excess > 0) {
      row.ids.erase(row.ids.begin(), row.ids.begin() + excess);
      row.prompt_length -= excess;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

/// True when the rows differ in their single label only, so that one of them serves for all.
bool share_one_context(const std::vector<TokenRow>& rows) {
  return std::all_of(rows.begin(), rows.end(), [&](const TokenRow& row) {
    return row.labels() == 1 && row.ids.size() == rows[0].ids.size() &&
           std::equal(row.ids.begin(), row.ids.end() - 1, rows[0].ids.begin());
  });
}

/// log p of each of `alternatives[r]` (four ids) at row r's single label: [rows, 4] on every rank.
at::Tensor score_alternatives(const Transformer& model, const std::vector<TokenRow>& rows,
                              const std::vector<int64_t>& alternatives, int64_t tokens_per_pass,
                              const Progress& progress) {
  at::Tensor table = at::zeros({static_cast<int64_t>(rows.size()), kChoices}, at::kDouble);
  for_each_pass(
      model, rows, tokens_per_pass,
      [&](const std::vector<size_t>& indices, const RaggedBatch& batch, const at::Tensor& hidden) {
        std::vector<int64_t> ids;
        for (size_t row : indices)
          ids.insert(ids.end(), alternatives.begin() + static_cast<int64_t>(row) * kChoices,
                     alternatives.begin() + static_cast<int64_t>(row + 1) * kChoices);
        const at::Tensor at_label =
            hidden.index_select(0, batch.label_positions).repeat_interleave(kChoices, 0);
        const at::Tensor log_p =
            model.token_log_probabilities(at_label, at::tensor(ids, at::kLong).to(hidden.device()))
                .to(at::kDouble)
                .cpu()
                .view({-1, kChoices});
        for (size_t i = 0; i < indices.size(); ++i)
          table[static_cast<int64_t>(indices[i])].copy_(log_p[static_cast<int64_t>(i)]);
      },
      progress);
  model.mesh().data.all_reduce(table);
  return table;
}

void count(const std::vector<ChoiceQuestion>& questions, ChoiceReport& report) {
  std::map<std::string, std::pair<int64_t, int64_t>> right_of;  // subject -> right, asked
  int64_t right = 0;
  for (size_t q = 0; q < questions.size(); ++q) {
    if (questions[q].answer < 0) continue;
    const bool is_right = report.predictions[q] == questions[q].answer;
    auto& [subject_right, subject_asked] = right_of[questions[q].subject];
    subject_right += is_right, ++subject_asked;
    right += is_right, ++report.counted;
  }
  if (report.counted > 0) report.accuracy = static_cast<double>(right) / static_cast<double>(report.counted);
  for (const auto& [subject, score] : right_of)
    report.accuracy_by_subject[subject] =
        static_cast<double>(score.first) / static_cast<double>(score.second);
}

}  // namespace

std::string choice_prompt(const ChoiceQuestion& question) {
  std::string prompt = "The following are multiple choice questions (with answers) about " +
                       question.subject + ".\n\n" + trimmed(question.question) + "\n";
  for (size_t c = 0; c < question.choices.size(); ++c)
    prompt += std::string(kLetters[c]) + ". " + question.choices[c] + "\n";
  return prompt + "Answer:";
}

ChoiceReport score_choices(const Transformer& model, const Tokenizer& tokenizer,
                           const std::vector<ChoiceQuestion>& questions, int64_t tokens_per_pass,
                           const Progress& progress) {
  std::vector<TokenRow> shared, apart;
  std::vector<int64_t> alternatives;
  std::vector<bool> is_shared;
  for (const ChoiceQuestion& question : questions) {
    std::vector<TokenRow> rows = choice_rows(tokenizer, question, model.config().max_positions);
    is_shared.push_back(share_one_context(rows));
    if (is_shared.back()) {
      for (const TokenRow& row : rows) alternatives.push_back(row.ids.back());
      shared.push_back(std::move(rows.front()));
    } else {
      std::move(rows.begin(), rows.end(), std::back_inserter(apart));
    }
  }
  const at::Tensor table = score_alternatives(model, shared, alternatives, tokens_per_pass, progress);
  const std::vector<RowScore> scores = score_rows(model, apart, tokens_per_pass, progress);

  ChoiceReport report;
  const double* next_shared = table.data_ptr<double>();
  auto next_apart = scores.begin();
  for (size_t q = 0; q < questions.size(); ++q) {
    std::vector<double> log_p;
    for (int64_t c = 0; c < kChoices; ++c)
      log_p.push_back(is_shared[q] ? *next_shared++ : (next_apart++)->log_probability());
    report.predictions.push_back(std::max_element(log_p.begin(), log_p.end()) - log_p.begin());
    report.log_probabilities.push_back(std::move(log_p));
  }
  count(questions, report);
  return report;
}

}  // namespace efface
