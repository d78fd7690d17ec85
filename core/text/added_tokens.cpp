#include "core/text/added_tokens.hpp"

#include <algorithm>

#include "core/text/utf8.hpp"

namespace efface {
namespace {

size_t last_code_point(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool word_before(std::string_view text) {
  size_t length = 0;
  return !text.empty() && is_word(decode_code_point(text.substr(last_code_point(text)), length));
}

bool word_after(std::string_view text) {
  size_t length = 0;
  return !text.empty() && is_word(decode_code_point(text, length));
}

size_t without_space_at_end(std::string_view text) {
  size_t length = 0;
  while (!text.empty()) {
    const size_t at = last_code_point(text);
    if (!is_whitespace(decode_code_point(text.substr(at), length))) break;
    text = text.substr(0, at);
  }
  return text.size();
}

size_t space_at_start(std::string_view text) {
  size_t at = 0, length = 0;
  while (at < text.size() && is_whitespace(decode_code_point(text.substr(at), length))) at += length;
  return at;
}

}  // namespace

std::vector<AddedToken> read_added_tokens(const JsonField& field) {
  std::vector<AddedToken> tokens;
  for (const JsonField& item : field.items()) {
    AddedToken token;
    token.id = item["id"].integer();
    if (token.id < 0) item["id"].fail("is negative");
    token.content = item["content"].text();
    token.special = item.boolean_or("special", false);
    token.single_word = item.boolean_or("single_word", false);
    token.lstrip = item.boolean_or("lstrip", false);
    token.rstrip = item.boolean_or("rstrip", false);
    token.normalized = item.boolean_or("normalized", !token.special);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer)
    : tokens_(std::move(tokens)), normalizer_(std::move(normalizer)) {
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const AddedToken& token = tokens_[t];
    const std::string pattern = token.normalized ? normalizer_(token.content) : token.content;
    if (pattern.empty()) continue;
    Index& index = token.normalized ? normalized_ : raw_;
    index[static_cast<unsigned char>(pattern[0])].push_back({pattern, t});
  }
  for (Index* index : {&raw_, &normalized_})
    for (auto& entries : *index)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const Entry& a, const Entry& b) { return a.pattern.size() > b.pattern.size(); });
}

void AddedTokens::find(const Index& index, const Piece& piece, std::vector<Piece>& result) const {
  const std::string_view text = piece.text;
  size_t done = 0;
  auto push_text = [&](size_t end) {
    if (end > done)
      result.push_back({std::string(text.substr(done, end - done)), -1, piece.at_start && done == 0});
  };
  for (size_t at = 0; at < text.size();) {
    const auto& entries = index[static_cast<unsigned char>(text[at])];
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&](const Entry& e) { return text.substr(at).starts_with(e.pattern); });
    if (entry == entries.end()) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + entry->pattern.size();
    at = end;
    const AddedToken& token = tokens_[entry->token];
    if (token.single_word && (word_before(text.substr(0, begin)) || word_after(text.substr(end)))) continue;
    if (token.lstrip) begin = std::max(without_space_at_end(text.substr(0, begin)), done);
    if (token.rstrip) end += space_at_start(text.substr(end));
    push_text(begin);
    result.push_back({token.content, token.id, false});
    done = at = end;
  }
  push_text(text.size());
}

std::vector<Piece> AddedTokens::split(const std::string& text) const {
  std::vector<Piece> raw, result;
  find(raw_, {text, -1, true}, raw);
  for (Piece& piece : raw) {
    if (piece.id >= 0) {
      result.push_back(std::move(piece));
      continue;
    }
    piece.text = normalizer_(piece.text);
    find(normalized_, piece, result);
  }
  return result;
}

}  // namespace efface
