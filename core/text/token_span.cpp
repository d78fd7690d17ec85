#include "core/text/token_span.hpp"

#include <algorithm>

namespace efface {

std::optional<TokenSpan> find_token_span(const Tokenizer& tokenizer, const std::vector<int64_t>& ids,
                                         const std::string& text) {
  const size_t begin = text.empty() ? std::string::npos : tokenizer.decode(ids).find(text);
  if (begin == std::string::npos) return std::nullopt;
  const size_t end = begin + text.size();

  // The text up to each token tells which bytes the token stands for.
  std::vector<size_t> ends;
  std::vector<int64_t> prefix;
  for (int64_t id : ids) {
    prefix.push_back(id);
    ends.push_back(tokenizer.decode(prefix).size());
    if (ends.back() >= end) break;
  }
  TokenSpan span;
  const auto count = static_cast<int64_t>(ends.size());
  while (span.begin < count && ends[static_cast<size_t>(span.begin)] <= begin) ++span.begin;
  span.end = span.begin;
  while (span.end < count && ends[static_cast<size_t>(span.end)] < end) ++span.end;
  span.end = std::min(span.end + 1, count);
  return span;
}

}  // namespace efface
