// Text from ids as they come, whole characters only.
#pragma once

#include <string>
#include <vector>

#include "core/text/tokenizer.hpp"

namespace efface {

class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  /// The text that is certain now that `id` has come: empty while it ends within a character.
  std::string push(int64_t id);
  /// What is left at the end. All pieces joined are the text of all ids.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<int64_t>
      ids_;            // those of the last piece, whose text may change how the next one begins, and on
  size_t known_ = 0;   // how many of them have been given out
  std::string given_;  // their text
};

}  // namespace efface
