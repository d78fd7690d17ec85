// Byte-pair encoding (Sennrich et al. 2016): a word's characters are merged pair by pair, lowest rank first.
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

class BytePairEncoder {
 public:
  /// `model` of a tokenizer.json of type BPE; merges as "a b" or as pairs.
  explicit BytePairEncoder(const JsonField& field);
  ~BytePairEncoder();
  BytePairEncoder(BytePairEncoder&&) noexcept;

  /// Appends the ids of one word. Safe to call from many threads; recent words are remembered.
  void encode(const std::string& word, std::vector<int64_t>& ids) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  class WordCache;

  void read_merges(const JsonField& field);
  std::vector<int32_t> characters(const std::string& word) const;
  void merge(std::vector<int32_t>& symbols) const;
  const Merge* find_merge(int32_t left, int32_t right) const;
  bool append_bytes(std::string_view character, std::vector<int32_t>& symbols) const;

  Vocabulary vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;  // key: left id, right id
  int32_t unknown_ = -1;
  std::vector<int32_t> byte_ids_;  // of "<0x00>" .. "<0xFF>"; empty without byte fallback
  bool fuse_unknown_ = false, ignore_merges_ = false;
  std::unique_ptr<WordCache> cache_;
};

}  // namespace efface
