#include "core/text/stream_decoder.hpp"

#include "core/text/utf8.hpp"

namespace efface {

std::string StreamDecoder::push(int64_t id) {
  ids_.push_back(id);
  const std::string text = tokenizer_.decode(ids_, skip_special_);
  // A character still split shows as U+FFFD at the end.
  if (text.size() <= given_.size() || text.ends_with(kReplacementCharacter) || !text.starts_with(given_))
    return "";
  std::string piece = text.substr(given_.size());
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(known_));
  known_ = ids_.size();
  given_ = tokenizer_.decode(ids_, skip_special_);
  return piece;
}

std::string StreamDecoder::finish() {
  const std::string text = tokenizer_.decode(ids_, skip_special_);
  std::string piece = text.starts_with(given_) ? text.substr(given_.size()) : "";
  ids_.clear();
  known_ = 0;
  given_.clear();
  return piece;
}

}  // namespace efface
