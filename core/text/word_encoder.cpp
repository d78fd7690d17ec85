#include "core/text/word_encoder.hpp"

#include <cstring>

#include "core/text/utf8.hpp"

namespace efface {

/// Words already encoded, in an open hash table; it stops growing when full, since frequent words come early.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 64;  // bytes

  WordCache() : slots_(kSlots) {}

  /// Null when the word is not there; `slot` is then where store() puts it.
  const WordToken* find(std::string_view word, size_t& slot, uint32_t& count) const {
    slot = std::hash<std::string_view>{}(word) & (kSlots - 1);
    while (slots_[slot].count != 0) {
      const Slot& at = slots_[slot];
      if (at.length == word.size() && std::memcmp(&bytes_[at.bytes], word.data(), word.size()) == 0) {
        count = at.count;
        return &tokens_[at.tokens];
      }
      slot = (slot + 1) & (kSlots - 1);
    }
    return nullptr;
  }

  void store(std::string_view word, size_t slot, const std::vector<WordToken>& tokens) {
    if (tokens.empty() || used_ == kSlots / 2) return;
    slots_[slot] = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(tokens_.size()),
                    static_cast<uint16_t>(word.size()), static_cast<uint16_t>(tokens.size())};
    bytes_.insert(bytes_.end(), word.begin(), word.end());
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    ++used_;
  }

 private:
  static constexpr size_t kSlots = 1 << 17;
  struct Slot {
    uint32_t bytes = 0, tokens = 0;
    uint16_t length = 0, count = 0;  // count 0: free
  };
  std::vector<Slot> slots_;
  std::vector<char> bytes_;
  std::vector<WordToken> tokens_;
  size_t used_ = 0;
};

WordEncoder::WordEncoder(std::unique_ptr<WordModel> model, bool byte_level)
    : model_(std::move(model)), byte_level_(byte_level) {}

WordEncoder::~WordEncoder() = default;

WordEncoder::Session::Session(const WordEncoder& encoder) : encoder_(encoder) {
  std::lock_guard lock(encoder.mutex_);
  if (encoder.idle_.empty()) {
    cache_ = std::make_unique<WordCache>();
  } else {
    cache_ = std::move(encoder.idle_.back());
    encoder.idle_.pop_back();
  }
}

WordEncoder::Session::~Session() {
  std::lock_guard lock(encoder_.mutex_);
  encoder_.idle_.push_back(std::move(cache_));
}

std::span<const WordToken> WordEncoder::Session::encode(std::string_view word) {
  const bool cached = word.size() <= WordCache::kLongestWord;
  size_t slot = 0;
  uint32_t count = 0;
  if (cached)
    if (const WordToken* found = cache_->find(word, slot, count)) return {found, count};
  tokens_.clear();
  encoder_.encode_new(word, tokens_);
  if (cached) cache_->store(word, slot, tokens_);
  return tokens_;
}

void WordEncoder::encode_new(std::string_view word, std::vector<WordToken>& tokens) const {
  if (!byte_level_) return model_->encode(word, tokens);
  std::string characters;
  std::vector<uint32_t> byte_of;  // by byte of `characters`
  for (uint32_t at = 0; at < word.size(); ++at) {
    const std::string& character = byte_characters()[static_cast<unsigned char>(word[at])];
    characters += character;
    byte_of.insert(byte_of.end(), character.size(), at);
  }
  model_->encode(characters, tokens);
  for (WordToken& token : tokens) {
    token.begin = byte_of[token.begin];
    token.end = byte_of[token.end - 1] + 1;
  }
}

}  // namespace efface
