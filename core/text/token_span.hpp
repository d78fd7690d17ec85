// Where a piece of text stands among tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/text/tokenizer.hpp"

namespace efface {

struct TokenSpan {
  int64_t begin = 0, end = 0;  ///< token indices, [begin, end)
};

/// The tokens that hold a byte of the first occurrence of `text` in the decoded `ids`; nothing when it is not
/// there, or empty.
std::optional<TokenSpan> find_token_span(const Tokenizer& tokenizer, const std::vector<int64_t>& ids,
                                         const std::string& text);

}  // namespace efface
