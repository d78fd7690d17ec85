// Tokens outside the model's merges ("<|im_start|>"), found in the text before anything else is done with it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/text/byte_trie.hpp"
#include "core/text/tokenizer_stages.hpp"

namespace efface {

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;      ///< left out of text on request
  bool single_word = false;  ///< only where no letter or digit touches it
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< ... and after it
  bool normalized = false;   ///< searched for in the normalised text
};

std::vector<AddedToken> read_added_tokens(const JsonField& field);

/// A part of the text: an added token, or text that is still to be cut into words.
struct Segment {
  AlignedText text;
  int64_t id = -1;  ///< of the added token; -1 for text
};

class AddedTokens {
 public:
  AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer);

  /// Tokens found, and the text between them normalised. Leftmost, then longest, wins.
  std::vector<Segment> split(AlignedText text) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  void find(const ByteTrie& patterns, AlignedText text, std::vector<Segment>& result) const;

  std::vector<AddedToken> tokens_;
  Normalizer normalizer_;
  ByteTrie raw_, normalized_;  // values: indices into tokens_
};

}  // namespace efface
