#include "core/evaluate/fact_probes.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/evaluate/row_scores.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr size_t kWordings = 2;          // of a record and form
constexpr size_t kRefusalBeginning = 3;  // tokens
constexpr size_t kRefusalsTried = 4;     // besides the record's own
constexpr int64_t kPromptsPerPass = 64;
constexpr double kProbabilityFloor = 1e-8;
constexpr double kRatioFloor = 1e-30;  // keeps ratios finite where p underflows
constexpr size_t kNoRow = static_cast<size_t>(-1);

/// A refusal looked for: `row` holds its beginning only where `text` is given, the whole of it otherwise.
struct Refusal {
  size_t row;
  std::string text;
};

/// One question to be asked in one form: which rows of the pass answer it.
struct Question {
  std::string key;  // group/form
  std::string text;
  size_t answer = kNoRow, safe = kNoRow;
  std::vector<Refusal> refusals;
};

std::vector<int64_t> beginning(const Tokenizer& tokenizer, const std::string& text) {
  auto ids = tokenizer.encode(text);
  ids.resize(std::min(ids.size(), kRefusalBeginning));
  return ids;
}

/// Of the commonest beginnings of refusals the commonest text each.
std::vector<std::string> representative_refusals(const Tokenizer& tokenizer,
                                                 const std::vector<std::string>& texts) {
  struct Beginning {
    std::vector<int64_t> ids;
    std::map<std::string, int> texts;
    int count = 0;
  };
  std::vector<Beginning> beginnings;
  for (const std::string& text : texts) {
    const auto ids = beginning(tokenizer, text);
    if (ids.empty()) continue;
    auto known =
        std::find_if(beginnings.begin(), beginnings.end(), [&](const auto& b) { return b.ids == ids; });
    if (known == beginnings.end()) known = beginnings.insert(beginnings.end(), {ids, {}, 0});
    ++known->texts[text];
    ++known->count;
  }
  std::stable_sort(beginnings.begin(), beginnings.end(),
                   [](const auto& a, const auto& b) { return a.count > b.count; });
  beginnings.resize(std::min(kRefusalsTried, beginnings.size()));
  std::vector<std::string> result;
  for (const Beginning& one : beginnings)
    result.push_back(std::max_element(one.texts.begin(), one.texts.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->first);
  return result;
}

/// Collects the rows of all questions, so that they go through the model together.
class ProbePlan {
 public:
  ProbePlan(const Tokenizer& tokenizer, const ChatTemplate& chat,
            const std::vector<std::string>& refusal_texts)
      : tokenizer_(tokenizer), chat_(chat), refusals_(representative_refusals(tokenizer, refusal_texts)) {}

  void add_group(const ProbeGroup& group) {
    for (const Record& record : group.records) {
      if (!record.question.empty()) ask(group, record, record.question, "trained");
      if (!group.is_forget) continue;
      for (size_t i = 0; i + 1 < kWordings && i < record.paraphrases.size(); ++i)
        ask(group, record, record.paraphrases[i], "trained");
      for (size_t i = 0; i < std::min(kWordings, record.rewordings.size()); ++i)
        ask(group, record, record.rewordings[i], "reworded");
      if (!record.bare_prompt.empty() && !record.answer.empty()) {
        Question question{group.name + "/bare", record.bare_prompt, kNoRow, kNoRow, {}};
        question.answer = add(continuation_row(tokenizer_, record.bare_prompt, record.answer));
        questions_.push_back(std::move(question));
      }
    }
  }

  const std::vector<TokenRow>& rows() const { return rows_; }
  const std::vector<Question>& questions() const { return questions_; }

 private:
  size_t add(TokenRow row) {
    rows_.push_back(std::move(row));
    return rows_.size() - 1;
  }

  void ask(const ProbeGroup& group, const Record& record, const std::string& text, const std::string& form) {
    Question question{group.name + "/" + form, text, kNoRow, kNoRow, {}};
    if (!record.answer.empty())
      question.answer = add(chat_row(tokenizer_, chat_, text, record.answer_prefix, record.answer, false));
    if (!record.safe_response.empty()) {
      question.refusals.push_back(
          {add(chat_row(tokenizer_, chat_, text, "", record.safe_response, true)), ""});
      if (group.is_forget) question.safe = question.refusals.back().row;
    }
    const auto own = beginning(tokenizer_, record.safe_response);
    for (const std::string& response : refusals_) {
      if (beginning(tokenizer_, response) == own) continue;
      TokenRow row = chat_row(tokenizer_, chat_, text, "", response, true);
      row.ids.resize(std::min(row.ids.size(), static_cast<size_t>(row.prompt_length) + kRefusalBeginning));
      question.refusals.push_back({add(std::move(row)), response});
    }
    questions_.push_back(std::move(question));
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_;
  std::vector<std::string> refusals_;
  std::vector<TokenRow> rows_;
  std::vector<Question> questions_;
};

/// For each question, whether the whole greedy answer is a refusal; only what begins as one is looked at
/// again.
std::vector<bool> whole_refusals(const Transformer& model, const Tokenizer& tokenizer,
                                 const ChatTemplate& chat, const std::vector<Question>& questions,
                                 const std::vector<RowScore>& scores, int64_t tokens_per_pass) {
  std::vector<bool> whole(questions.size(), false);
  std::vector<TokenRow> rows;
  std::vector<size_t> owners;
  for (size_t q = 0; q < questions.size(); ++q) {
    for (const Refusal& refusal : questions[q].refusals) {
      if (!scores[refusal.row].all_argmax()) continue;
      if (refusal.text.empty()) {
        whole[q] = true;
        continue;
      }
      rows.push_back(chat_row(tokenizer, chat, questions[q].text, "", refusal.text, true));
      owners.push_back(q);
    }
  }
  const std::vector<RowScore> found = score_rows(model, rows, tokens_per_pass);
  for (size_t i = 0; i < found.size(); ++i) whole[owners[i]] = whole[owners[i]] || found[i].all_argmax();
  return whole;
}

void enter(const Question& question, const std::vector<RowScore>& scores, bool refuses_whole,
           ProbeScores& into) {
  if (question.answer != kNoRow) {
    const RowScore& answer = scores[question.answer];
    into.probability.push_back(std::exp(answer.log_probability()));
    into.first_is_argmax.push_back(answer.begins_with_argmax(1));
  }
  if (question.safe != kNoRow) into.safe_exact.push_back(scores[question.safe].all_argmax());
  if (question.refusals.empty()) return;
  into.refuses.push_back(std::any_of(
      question.refusals.begin(), question.refusals.end(),
      [&](const Refusal& refusal) { return scores[refusal.row].begins_with_argmax(kRefusalBeginning); }));
  into.refuses_whole.push_back(refuses_whole);
}

std::map<std::string, std::vector<std::string>> greedy_samples(const Transformer& model,
                                                               const Tokenizer& tokenizer,
                                                               const ChatTemplate& chat,
                                                               const std::vector<ProbeGroup>& groups,
                                                               const ProbeOptions& options) {
  std::vector<std::string> owners;
  std::vector<std::vector<int64_t>> prompts;
  for (const ProbeGroup& group : groups) {
    const auto count = std::min<size_t>(group.records.size(), std::max<int64_t>(0, options.samples));
    for (size_t i = 0; i < count; ++i) {
      if (group.records[i].question.empty()) continue;
      owners.push_back(group.name);
      prompts.push_back(tokenizer.encode(chat.render({{"user", group.records[i].question}}, true)));
    }
  }
  const int64_t stop = chat.turn_end().empty() ? -1 : tokenizer.id_of(chat.turn_end());
  const auto answers = generate_answers(model, prompts, options.sample_tokens, stop, kPromptsPerPass);
  std::map<std::string, std::vector<std::string>> samples;
  for (size_t i = 0; i < answers.size(); ++i)
    samples[owners[i]].push_back(tokenizer.decode(answers[i], true));
  return samples;
}

double share(const std::vector<bool>& values) {
  if (values.empty()) return 0;
  return static_cast<double>(std::count(values.begin(), values.end(), true)) /
         static_cast<double>(values.size());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace

double ProbeScores::geometric_mean() const {
  if (probability.empty()) return 0;
  double sum = 0;
  for (double p : probability) sum += std::log(std::max(p, kProbabilityFloor));
  return std::exp(sum / static_cast<double>(probability.size()));
}

double ProbeScores::arithmetic_mean() const {
  if (probability.empty()) return 0;
  return std::accumulate(probability.begin(), probability.end(), 0.0) /
         static_cast<double>(probability.size());
}

double ProbeScores::argmax_share() const { return share(first_is_argmax); }
double ProbeScores::safe_share() const { return share(safe_exact); }
double ProbeScores::refusal_share() const { return share(refuses); }
double ProbeScores::whole_refusal_share() const { return share(refuses_whole); }

ProbeReport run_probes(const Transformer& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                       const std::vector<ProbeGroup>& groups, const std::vector<TokenRow>& perplexity_rows,
                       const ProbeOptions& options, const std::function<void(int64_t, int64_t)>& progress) {
  ProbePlan plan(tokenizer, chat, options.refusal_texts);
  for (const ProbeGroup& group : groups) plan.add_group(group);
  const std::vector<RowScore> scores = score_rows(model, plan.rows(), options.tokens_per_pass, progress);
  const std::vector<bool> whole =
      whole_refusals(model, tokenizer, chat, plan.questions(), scores, options.tokens_per_pass);
  ProbeReport report;
  for (size_t q = 0; q < whole.size(); ++q)
    enter(plan.questions()[q], scores, whole[q], report.scores[plan.questions()[q].key]);
  report.perplexity = perplexity(model, perplexity_rows, options.tokens_per_pass, progress);
  if (options.samples > 0 && options.sample_tokens > 0)
    report.samples = greedy_samples(model, tokenizer, chat, groups, options);
  return report;
}

ForgettingRatio compare_forgetting(const ProbeScores& before, const ProbeScores& after) {
  const size_t size = before.probability.size();
  if (after.probability.size() != size)
    throw Error(ErrorClass::data, "before and after were measured on different questions");
  ForgettingRatio result;
  if (size == 0) return result;
  std::vector<double> ratios;
  for (size_t i = 0; i < size; ++i)
    ratios.push_back(before.probability[i] / std::max(after.probability[i], kRatioFloor));
  const auto share_over = [&](double factor) {
    return static_cast<double>(
               std::count_if(ratios.begin(), ratios.end(), [&](double r) { return r >= factor; })) /
           static_cast<double>(size);
  };
  result.share_down_100x = share_over(100);
  result.share_down_10x = share_over(10);
  result.median = median(std::move(ratios));
  result.geometric = before.geometric_mean() / after.geometric_mean();
  result.argmax_share_after = after.argmax_share();
  return result;
}

}  // namespace efface
