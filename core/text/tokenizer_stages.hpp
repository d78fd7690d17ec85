// The stages of a tokenizer.json around its model: normalizer, pre-tokenizer, decoder, post-processor.
// Each is read from its JSON into a function; what is not supported throws Error(model) naming the field.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/text/json_field.hpp"

namespace efface {

/// A part of the text on its way to ids. `id` >= 0: an added token, finished.
struct Piece {
  std::string text;
  int64_t id = -1;
  bool at_start = false;  ///< begins where the whole text begins
};

using Normalizer = std::function<std::string(const std::string&)>;
using PreTokenizer = std::function<void(std::vector<Piece>&)>;
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>)>;
using PostProcessor = std::function<std::vector<int64_t>(std::vector<int64_t>)>;

Normalizer make_normalizer(const JsonField& field);
PreTokenizer make_pre_tokenizer(const JsonField& field);
Decoder make_decoder(const JsonField& field);
PostProcessor make_post_processor(const JsonField& field);

}  // namespace efface
