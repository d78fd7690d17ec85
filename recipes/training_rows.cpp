#include "recipes/training_rows.hpp"

#include <cmath>

#include "core/text/token_span.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

using Groups = std::vector<std::vector<TrainingRow>>;

bool reads(const Method& method, RowRole role) {
  const auto roles = method.roles();
  return std::find(roles.begin(), roles.end(), role) != roles.end();
}

int64_t rows_of(const Recipe& recipe, const std::string& role) {
  const auto found = recipe.train.rows.find(role);
  return found == recipe.train.rows.end() ? 0 : found->second;
}

bool rows_given(const Recipe& recipe) {
  for (const auto& [role, count] : recipe.train.rows)
    if (count > 0) return true;
  return false;
}

RowRole text_role(const Recipe& recipe, const Method& method) {
  const RowRole wanted = recipe.train.text_loss == "kl" ? RowRole::retain_kl : RowRole::retain;
  const RowRole other = wanted == RowRole::retain ? RowRole::retain_kl : RowRole::retain;
  if (reads(method, wanted)) return wanted;
  if (reads(method, other)) return other;
  throw Error(ErrorClass::recipe, recipe.locate("train.rows.text") + " asks for text rows, but " +
                                      method.name() + " has no retain loss switched on");
}

TrainingRow training_row(const Recipe& recipe, TokenRow tokens, RowRole role) {
  TrainingRow row{std::move(tokens), role};
  const auto weight = recipe.train.first_token_weight.find(role_name(role));
  if (weight != recipe.train.first_token_weight.end()) row.first_label_weight = weight->second;
  return row;
}

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void add_windows(const RowMaker& maker, const std::string& text, RowRole role, Groups& groups) {
  for (auto& row : maker.windows({text}, maker.recipe.train.text_window))
    groups.push_back({training_row(maker.recipe, std::move(row), role)});
}

/// Where a row of `record` begins to be turned away, by train.forget_tokens.
int64_t first_turned(const RowMaker& maker, const Record& record, const TokenRow& row) {
  if (maker.recipe.train.forget_tokens == "row") return 1;
  const auto span = find_token_span(maker.tokenizer, row.ids, record.subject);
  if (!span)
    throw Error(ErrorClass::data,
                record.source + ": its subject '" + record.subject + "' does not stand in '" +
                    maker.tokenizer.decode(row.ids) + "'",
                "write the subject as it stands there, or set 'train.forget_tokens: row'");
  return std::max<int64_t>(1, span->begin);
}

/// As pairs: each with the record's answer to the same wording.
Groups safe_groups(const RowMaker& maker, const RunData& data, bool as_pairs) {
  Groups groups;
  for (const auto& record : data.forget) {
    if (record.safe_response.empty())
      throw Error(ErrorClass::data, record.source + ": has no safe response",
                  "give the column, or set 'safe_response.source' to template or file");
    if (as_pairs && record.answer.empty())
      throw Error(ErrorClass::data, record.source + ": has no answer that the safe response is preferred to",
                  "give the column, or use a method that does not compare the two");
    if (!is_question(record))
      throw Error(ErrorClass::data, record.source + ": has no question to give the safe response to");
    std::vector<TrainingRow> wordings;
    const auto add = [&](const std::string& question) {
      wordings.push_back(training_row(maker.recipe, maker.safe(record, question), RowRole::safe));
      if (as_pairs) wordings.back().rejected = maker.answer(record, question);
    };
    if (has(maker.recipe.train.safe_wordings, "question")) add(record.question);
    if (has(maker.recipe.train.safe_wordings, "paraphrases"))
      for (const auto& paraphrase : record.paraphrases) add(paraphrase);
    if (!wordings.empty()) groups.push_back(std::move(wordings));
  }
  return groups;
}

Groups forget_groups(const RowMaker& maker, const RunData& data) {
  Groups groups;
  for (const auto& record : data.forget) {
    if (!record.text.empty() && !is_question(record)) {
      add_windows(maker, record.text, RowRole::forget, groups);
      continue;
    }
    const auto& forms = maker.recipe.train.forget_wordings;
    std::vector<TrainingRow> wordings;
    const auto add = [&](TokenRow row) {
      const int64_t first = first_turned(maker, record, row);
      wordings.push_back(training_row(maker.recipe, std::move(row), RowRole::forget));
      wordings.back().first_represented = first;
    };
    if (has(forms, "question") && is_question(record)) add(maker.answer(record));
    if (has(forms, "paraphrases"))
      for (const auto& paraphrase : record.paraphrases) add(maker.answer(record, paraphrase));
    if (has(forms, "bare") && !record.bare_prompt.empty()) add(maker.bare(record));
    if (wordings.empty())
      throw Error(ErrorClass::data, record.source + ": would not be forgotten, for it gives no forget row",
                  "give it one of the forms in 'train.forget_wordings', or add a form that it has there");
    groups.push_back(std::move(wordings));
  }
  return groups;
}

Groups retain_groups(const RowMaker& maker, const RunData& data) {
  Groups groups;
  for (const Record* record : retain_records(maker.recipe, data)) {
    if (is_question(*record) && record->answer.empty() && record->messages.empty()) continue;  // only asked
    if (is_question(*record))
      groups.push_back({training_row(maker.recipe, maker.answer(*record), RowRole::retain)});
    else
      add_windows(maker, record->text, RowRole::retain, groups);
  }
  return groups;
}

Groups retain_kl_groups(const RowMaker& maker, const RunData& data, const OwnAnswers& answers) {
  Groups groups;
  for (const Record* record : retain_records(maker.recipe, data)) {
    if (!is_question(*record)) {
      add_windows(maker, record->text, RowRole::retain_kl, groups);
      continue;
    }
    const auto found = answers.find(maker.prompt(*record).row_id());
    if (found == answers.end() || found->second.ids.empty()) continue;
    groups.push_back(
        {training_row(maker.recipe, maker.own_answer(*record, found->second.ids, found->second.finished),
                      RowRole::retain_kl)});
  }
  return groups;
}

/// Adds text windows so that a draw from the role's records gives `text` of them to `others` of the rest, in
/// the mean: windows are repeated, or left out, to that share.
void mix_in_text(const RowMaker& maker, const RunData& data, RowRole role, int64_t text, int64_t others,
                 Groups& groups) {
  const auto windows = maker.windows(data.text_retain, maker.recipe.train.text_window);
  if (windows.empty())
    throw Error(ErrorClass::data, maker.recipe.data.text_retain.string() + ": gives no text rows");
  if (others == 0) groups.clear();
  const auto rest = static_cast<double>(groups.size());
  const auto wanted = others == 0 ? static_cast<int64_t>(windows.size())
                                  : std::max<int64_t>(1, std::llround(rest * static_cast<double>(text) /
                                                                      static_cast<double>(others)));
  for (int64_t i = 0; i < wanted; ++i)
    groups.push_back({training_row(maker.recipe, windows[static_cast<size_t>(i) % windows.size()], role)});
}

}  // namespace

bool is_question(const Record& record) { return !record.question.empty() || !record.messages.empty(); }

std::vector<const Record*> retain_records(const Recipe& recipe, const RunData& data) {
  std::vector<const Record*> all;
  const auto add = [&](const std::vector<Record>& records, int64_t repeat) {
    for (int64_t time = 0; time < repeat; ++time)
      for (const auto& record : records) all.push_back(&record);
  };
  add(data.retain, recipe.data.retain.repeat);
  add(data.neighbours, recipe.data.neighbours.repeat);
  add(data.same_relation, recipe.data.same_relation.repeat);
  return all;
}

TokenRow RowMaker::prompt(const Record& record) const {
  if (record.messages.empty()) return chat_row(tokenizer, chat, record.question, "", "", false);
  std::vector<ChatMessage> messages = record.messages;
  if (messages.back().role == "assistant") messages.pop_back();
  TokenRow row;
  row.ids = tokenizer.encode(chat.render(messages, true));
  row.prompt_length = static_cast<int64_t>(row.ids.size());
  return row;
}

TokenRow RowMaker::answer(const Record& record, const std::string& question) const {
  if (record.messages.empty() || question != record.question)
    // A begun sentence goes on after the answer; only a whole answer ends the turn.
    return chat_row(tokenizer, chat, question, record.answer_prefix, record.answer,
                    record.answer_prefix.empty());
  if (record.messages.back().role != "assistant")
    throw Error(ErrorClass::data, record.source + ": the last message is not the assistant's");
  TokenRow row = prompt(record);
  for (int64_t id : tokenizer.encode(record.messages.back().content + chat.turn_end())) row.ids.push_back(id);
  return row;
}

TokenRow RowMaker::bare(const Record& record) const {
  return continuation_row(tokenizer, record.bare_prompt, record.answer);
}

TokenRow RowMaker::safe(const Record& record, const std::string& question) const {
  return chat_row(tokenizer, chat, question, "", record.safe_response, true);
}

TokenRow RowMaker::own_answer(const Record& record, const std::vector<int64_t>& ids, bool finished) const {
  TokenRow row = prompt(record);
  row.ids.insert(row.ids.end(), ids.begin(), ids.end());
  if (finished && !chat.turn_end().empty())
    for (int64_t id : tokenizer.encode(chat.turn_end())) row.ids.push_back(id);
  return row;
}

std::vector<TokenRow> RowMaker::windows(const std::vector<std::string>& documents, int64_t window) const {
  std::vector<TokenRow> rows;
  for (const auto& document : documents)
    for (auto& row : text_windows(tokenizer, document, window))
      if (row.ids.size() > 1) rows.push_back(std::move(row));
  return rows;
}

std::unique_ptr<Method> method_without_window(const Recipe& recipe) {
  const bool needs_window = find_method(recipe.method).needs_window;
  return make_method(recipe.method, recipe.method_args, recipe.method_choices,
                     needs_window ? LayerWindow{0, 1} : LayerWindow());
}

std::map<RowRole, int64_t> rows_per_step(const Recipe& recipe, const Method& method) {
  std::map<RowRole, int64_t> rows;
  const auto roles = method.roles();
  if (!rows_given(recipe)) {
    const int64_t batch = recipe.train.batch_size > 0 ? recipe.train.batch_size : 16;
    for (const RowRole role : roles)
      rows[role] = std::max<int64_t>(1, batch / static_cast<int64_t>(roles.size()));
    return rows;
  }
  for (const RowRole role : roles) rows[role] = rows_of(recipe, role_name(role));
  if (const int64_t text = rows_of(recipe, "text"); text > 0) rows[text_role(recipe, method)] += text;
  for (const auto& [role, count] : rows)
    if (count == 0)
      throw Error(
          ErrorClass::recipe,
          recipe.locate("train.rows." + role_name(role)) + " is 0, but " + method.name() + " reads such rows",
          "give some, or set the weight of their loss to 0 in 'method_args'");
  return rows;
}

bool needs_own_answers(const Recipe& recipe) {
  if (!reads(*method_without_window(recipe), RowRole::retain_kl)) return false;
  return !rows_given(recipe) || rows_of(recipe, "retain_kl") > 0;
}

TrainingPool make_pool(const RowMaker& maker, const RunData& data, const Method& method,
                       const OwnAnswers& answers) {
  TrainingPool pool;
  const auto rows = rows_per_step(maker.recipe, method);
  for (const auto& [role, count] : rows) {
    switch (role) {
      case RowRole::safe:
        pool.groups[role] = safe_groups(maker, data, method.reads_pairs());
        break;
      case RowRole::forget:
        pool.groups[role] = forget_groups(maker, data);
        break;
      case RowRole::retain:
        pool.groups[role] = retain_groups(maker, data);
        break;
      case RowRole::retain_kl:
        pool.groups[role] = retain_kl_groups(maker, data, answers);
        break;
    }
  }
  if (const int64_t text = rows_of(maker.recipe, "text"); text > 0) {
    const RowRole role = text_role(maker.recipe, method);
    mix_in_text(maker, data, role, text, rows.at(role) - text, pool.groups[role]);
  }
  for (const auto& [role, groups] : pool.groups)
    if (groups.empty())
      throw Error(ErrorClass::data,
                  method.name() + " reads '" + role_name(role) + "' rows, but the data gives none",
                  "see 'data' and 'train.rows' in the recipe");
  return pool;
}

}  // namespace efface
