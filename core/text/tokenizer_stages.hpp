// The stages of a tokenizer.json around its model: normalizer, pre-tokenizer, decoder, post-processor.
// Each is read from its JSON into a function; what is not supported throws Error(model) naming the field.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/text/aligned_text.hpp"
#include "core/text/json_field.hpp"
#include "core/text/tokenizer.hpp"

namespace efface {

/// A text cut into words: ranges of it from left to right, none empty, which need not cover it.
struct Words {
  AlignedText text;
  std::vector<TextRange> ranges;
};

struct PreTokenizer {
  std::function<void(Words&)> cut;
  /// The words' bytes are to be replaced by their stand-in characters before the model sees them; left to the
  /// model so that words met before are not.
  bool byte_level = false;
  bool needs_origins = false;  ///< what it does depends on where the text stands in the original
};

using TokenNames = std::vector<std::string>;  // by id

using Normalizer = std::function<AlignedText(AlignedText)>;
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>)>;
/// Offsets, into `text`, are changed along where there are any; special tokens are added only if
/// `add_special`.
using PostProcessor =
    std::function<void(Encoding&, std::string_view text, const TokenNames&, bool add_special)>;

Normalizer make_normalizer(const JsonField& field);
PreTokenizer make_pre_tokenizer(const JsonField& field);
Decoder make_decoder(const JsonField& field);
PostProcessor make_post_processor(const JsonField& field);

/// Every byte replaced by its stand-in character, which has the origin of the byte's character.
AlignedText to_byte_characters(const AlignedText& text);

/// Bytes of white space that `text` begins with, and where those it ends with begin.
size_t space_at_start(std::string_view text);
size_t without_space_at_end(std::string_view text);

}  // namespace efface
