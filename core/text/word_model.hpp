// From a word to ids: what byte-pair encoding and the unigram model have in common.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/json_field.hpp"

namespace efface {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using Vocabulary = std::unordered_map<std::string, int64_t, StringHash, std::equal_to<>>;

/// An id and the bytes of the word it stands for.
struct WordToken {
  int32_t id;
  uint32_t begin, end;
};

class WordModel {
 public:
  virtual ~WordModel() = default;
  /// Appends the tokens of one word, which is not empty. Safe to call from many threads.
  virtual void encode(std::string_view word, std::vector<WordToken>& tokens) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  /// True when no token reaches over a boundary where `mark` follows the character before it, so that a text
  /// may be cut there first.
  virtual bool may_cut_before(char32_t mark, std::string_view text, size_t at) const = 0;
};

/// `model` of a tokenizer.json: BPE or Unigram.
std::unique_ptr<WordModel> make_word_model(const JsonField& field);
std::unique_ptr<WordModel> make_byte_pair_model(const JsonField& field);
std::unique_ptr<WordModel> make_unigram_model(const JsonField& field);

/// Ids of "<0x00>" .. "<0xFF>", -1 where the vocabulary lacks one.
std::vector<int32_t> byte_token_ids(const Vocabulary& vocabulary);

}  // namespace efface
