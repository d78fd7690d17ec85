// A word model that remembers the words it has met.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/text/word_model.hpp"

namespace efface {

class WordCache;

class WordEncoder {
 public:
  /// byte_level: the model is given each byte's stand-in character; tokens still count the word's own bytes.
  WordEncoder(std::unique_ptr<WordModel> model, bool byte_level);
  ~WordEncoder();

  const WordModel& model() const { return *model_; }

  /// Encodes words for one caller; several may be at work at the same time, each with words of its own.
  class Session {
   public:
    explicit Session(const WordEncoder& encoder);
    ~Session();
    /// The word's tokens, valid until the next call; `word` is not empty.
    std::span<const WordToken> encode(std::string_view word);

   private:
    const WordEncoder& encoder_;
    std::unique_ptr<WordCache> cache_;
    std::vector<WordToken> tokens_;
  };

 private:
  void encode_new(std::string_view word, std::vector<WordToken>& tokens) const;

  std::unique_ptr<WordModel> model_;
  bool byte_level_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<WordCache>> idle_;  // caches of sessions that have ended
};

}  // namespace efface
