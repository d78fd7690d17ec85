// From a vocabulary with scores, as SentencePiece's BPE has it, to a list of merges, as tokenizer.json has
// it.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

namespace efface {

/// Longest token, in bytes, that score_merges() splits.
constexpr size_t kLongestMergedToken = 256;

/// Each pair of tokens that makes a token at a position `made` says, best score first: [[left, right], ...].
/// No text may be longer than kLongestMergedToken.
nlohmann::ordered_json score_merges(const std::vector<std::string_view>& texts,
                                    const std::vector<float>& scores, const std::vector<bool>& made);

}  // namespace efface
