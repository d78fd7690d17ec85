// Rows of tokens from texts; declared in chat_template.hpp.
#include <algorithm>
#include <cctype>

#include "core/text/chat_template.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

/// Bytes over 0x7F are parts of letters more often than not.
bool is_word_byte(char c) { return std::isalnum(static_cast<unsigned char>(c)) || (c & 0x80) != 0; }

std::string joined_answer(const std::string& prompt, const std::string& answer) {
  const bool run_together =
      !prompt.empty() && !answer.empty() && is_word_byte(prompt.back()) && is_word_byte(answer.front());
  return run_together ? " " + answer : answer;
}

/// True for tokenizers that put a space before every text, so that a continuation must not bring its own.
bool adds_space(const Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode("x");
  if (ids.empty()) return false;
  const std::string first = tokenizer.token_of(ids.front());
  return first.starts_with("\xE2\x96\x81") || first.starts_with("\xC4\xA0");  // U+2581, or a byte-level space
}

std::vector<int64_t> continuation_ids(const Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.encode(text.starts_with(' ') && adds_space(tokenizer) ? text.substr(1) : text);
}

void append(std::vector<int64_t>& ids, const std::vector<int64_t>& more) {
  ids.insert(ids.end(), more.begin(), more.end());
}

TokenRow prompt_row(std::vector<int64_t> ids) {
  TokenRow row;
  row.prompt_length = static_cast<int64_t>(ids.size());
  row.ids = std::move(ids);
  return row;
}

}  // namespace

TokenRow chat_row(const Tokenizer& tokenizer, const ChatTemplate& chat, const std::string& question,
                  const std::string& answer_prefix, const std::string& answer, bool end_turn) {
  std::string prompt = chat.render({{"user", question}}, true);
  std::string rest = answer;
  if (!answer_prefix.empty()) {
    prompt += chat.answer_space() + answer_prefix;
    rest = joined_answer(answer_prefix, answer);
  } else if (!answer.starts_with(' ')) {
    rest = chat.answer_space() + answer;
  }
  TokenRow row = prompt_row(tokenizer.encode(prompt));
  append(row.ids, continuation_ids(tokenizer, rest));
  if (end_turn && !chat.turn_end().empty()) {
    const int64_t id = tokenizer.id_of(chat.turn_end());
    if (id < 0)
      throw Error(ErrorClass::model,
                  "the tokenizer has no '" + chat.turn_end() + "', the end of a turn of the chat template '" +
                      chat.name() + "'",
                  "name another template in the recipe (model.template)");
    row.ids.push_back(id);
  }
  return row;
}

TokenRow plain_row(const Tokenizer& tokenizer, const std::string& prompt, const std::string& completion) {
  TokenRow row = prompt_row(tokenizer.encode(prompt));
  append(row.ids, tokenizer.encode(completion));
  return row;
}

TokenRow continuation_row(const Tokenizer& tokenizer, const std::string& prompt, const std::string& answer) {
  const auto plain = tokenizer.encode(prompt);
  auto ids = tokenizer.encode(prompt, true);
  ids.erase(
      std::search(ids.begin(), ids.end(), plain.begin(), plain.end()) + static_cast<int64_t>(plain.size()),
      ids.end());  // an end of text is not wanted between the two
  TokenRow row = prompt_row(std::move(ids));
  append(row.ids, continuation_ids(tokenizer, joined_answer(prompt, answer)));
  return row;
}

std::vector<TokenRow> text_windows(const Tokenizer& tokenizer, const std::string& text, int64_t window) {
  if (window < 2) throw Error(ErrorClass::usage, "a text window needs at least 2 tokens");
  const std::vector<int64_t> ids = tokenizer.encode(text);
  std::vector<TokenRow> rows;
  for (size_t at = 0; at + 1 < ids.size(); at += static_cast<size_t>(window)) {
    const size_t end = std::min(ids.size(), at + static_cast<size_t>(window));
    rows.push_back({{ids.begin() + static_cast<int64_t>(at), ids.begin() + static_cast<int64_t>(end)}, 1});
  }
  return rows;
}

}  // namespace efface
