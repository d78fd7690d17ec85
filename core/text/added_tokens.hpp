// Tokens outside the model's merges ("<|im_start|>"), found in the text before anything else is done with it.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

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

class AddedTokens {
 public:
  AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer);

  /// Tokens found as pieces with an id; the text between them normalised. Leftmost, then longest, wins.
  std::vector<Piece> split(const std::string& text) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  struct Entry {
    std::string pattern;
    size_t token;  // index into tokens_
  };
  using Index = std::array<std::vector<Entry>, 256>;  // by first byte, longest first

  void find(const Index& index, const Piece& piece, std::vector<Piece>& result) const;

  std::vector<AddedToken> tokens_;
  Normalizer normalizer_;
  Index raw_, normalized_;
};

}  // namespace efface
