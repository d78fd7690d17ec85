// llama2.c's own tokenizer, for the two small trained models of the shared data.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.hpp"

namespace efface::testing {

/// Ids as llama2.c's `run` makes them from its tokenizer.bin: BOS (1), a space in front, one token a UTF-8
/// character (a character without a token: its bytes, each plus 3), then the pair whose token has the best
/// score is merged, the first of equals, until none is left.
inline std::vector<int64_t> llama2c_encode(const std::filesystem::path& tokenizer, const std::string& text) {
  const std::string file = read_bytes(tokenizer);
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::map<std::string, int64_t> ids;
  for (size_t offset = 4; offset + 8 <= file.size();) {
    float score;
    int32_t length;
    std::memcpy(&score, file.data() + offset, 4);
    std::memcpy(&length, file.data() + offset + 4, 4);
    tokens.push_back(file.substr(offset + 8, length));
    scores.push_back(score);
    ids.emplace(tokens.back(), tokens.size() - 1);
    offset += 8 + length;
  }
  if (!ids.count(" ")) throw std::runtime_error(tokenizer.string() + ": no token for a space");

  std::vector<int64_t> result{1};
  if (!text.empty()) result.push_back(ids.at(" "));
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    for (end = begin + 1; end < text.size() && (text[end] & 0xC0) == 0x80 && end - begin < 4;) ++end;
    const auto found = ids.find(text.substr(begin, end - begin));
    if (found != ids.end())
      result.push_back(found->second);
    else
      for (size_t i = begin; i < end; ++i) result.push_back(static_cast<uint8_t>(text[i]) + 3);
  }
  const auto text_of = [&](int64_t id) { return id < static_cast<int64_t>(tokens.size()) ? tokens[id] : ""; };
  for (;;) {
    float best = -std::numeric_limits<float>::infinity();
    size_t position = result.size();
    int64_t merged = -1;
    for (size_t i = 0; i + 1 < result.size(); ++i) {
      const auto found = ids.find(text_of(result[i]) + text_of(result[i + 1]));
      if (found == ids.end() || scores[found->second] <= best) continue;
      best = scores[found->second];
      position = i;
      merged = found->second;
    }
    if (merged < 0) return result;
    result[position] = merged;
    result.erase(result.begin() + static_cast<int64_t>(position) + 1);
  }
}

/// The rows of the shared sample whose mean NLL is known (1.3239 for stories260K, .7219 for babyllama105):
/// each of its first five texts, newlines included, cut to the model's context.
inline std::vector<std::vector<int64_t>> llama2c_sample_rows(const std::filesystem::path& sample,
                                                             const std::filesystem::path& tokenizer,
                                                             size_t context) {
  const std::string text = read_bytes(sample), separator = "<|endoftext|>";
  std::vector<std::vector<int64_t>> rows;
  for (size_t begin = 0; rows.size() < 5;) {
    const size_t end = text.find(separator, begin);
    rows.push_back(llama2c_encode(tokenizer, text.substr(begin, end - begin)));
    if (rows.back().size() > context) rows.back().resize(context);
    if (end == std::string::npos) break;
    begin = end + separator.size();
  }
  return rows;
}

}  // namespace efface::testing
