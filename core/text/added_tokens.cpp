#include "core/text/added_tokens.hpp"

#include <algorithm>

#include "core/text/class_pattern.hpp"
#include "core/text/utf8.hpp"

namespace efface {
namespace {

/// What a regular expression calls a word character: letters, marks, digits, connectors, joiners.
bool is_word(std::string_view character) {
  static const ClassPattern pattern = ClassPattern::parse(R"([\w\p{Alphabetic}‌‍])").value();
  return !pattern.find_all(character).empty();
}

bool word_before(std::string_view text) {
  return !text.empty() && is_word(text.substr(start_of_last_character(text)));
}

bool word_after(std::string_view text) {
  return !text.empty() && is_word(text.substr(0, code_point_length(text[0])));
}

}  // namespace

size_t without_space_at_end(std::string_view text) {
  size_t length = 0;
  while (!text.empty()) {
    const size_t at = start_of_last_character(text);
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
  for (const bool special : {true, false})  // of equal patterns a special token wins
    for (size_t t = 0; t < tokens_.size(); ++t) {
      const AddedToken& token = tokens_[t];
      if (token.special != special) continue;
      const std::string pattern =
          token.normalized ? normalizer_(AlignedText(token.content, 0, false)).text() : token.content;
      if (!pattern.empty()) (token.normalized ? normalized_ : raw_).insert(pattern, static_cast<int32_t>(t));
    }
}

void AddedTokens::find(const ByteTrie& patterns, AlignedText aligned, std::vector<Segment>& result) const {
  const std::string_view text = aligned.text();
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    int32_t index = -1;
    if (patterns.may_begin(text[at]))
      patterns.for_each_prefix(text.substr(at), [&](size_t longer, int32_t value) {
        length = longer;
        index = value;
      });
    if (index < 0) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + length;
    at = end;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    if (token.single_word && (word_before(text.substr(0, begin)) || word_after(text.substr(end)))) continue;
    if (token.lstrip) begin = std::max(without_space_at_end(text.substr(0, begin)), done);
    if (token.rstrip) end += space_at_start(text.substr(end));
    if (begin > done) result.push_back({aligned.slice({done, begin})});
    result.push_back({aligned.slice({begin, end}), token.id});
    done = end;
  }
  if (done == 0)
    result.push_back({std::move(aligned)});
  else if (done < text.size())
    result.push_back({aligned.slice({done, text.size()})});
}

std::vector<Segment> AddedTokens::split(AlignedText text) const {
  std::vector<Segment> raw, result;
  find(raw_, std::move(text), raw);
  for (Segment& segment : raw) {
    if (segment.id >= 0)
      result.push_back(std::move(segment));
    else
      find(normalized_, normalizer_(std::move(segment.text)), result);
  }
  return result;
}

}  // namespace efface
