#include "core/text/aligned_text.hpp"

#include "core/text/utf8.hpp"

namespace efface {
namespace {

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

AlignedText AlignedText::from_bytes(std::string_view bytes, bool tracked) {
  if (is_valid_utf8(bytes)) return AlignedText(std::string(bytes), 0, tracked);
  AlignedText result("", 0, tracked);
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Sequence sequence = next_sequence(bytes.substr(at));
    const std::string_view part = sequence.valid ? bytes.substr(at, sequence.length) : kReplacementCharacter;
    result.text_ += part;
    if (tracked) result.origins_.insert(result.origins_.end(), part.size(), {at, at + sequence.length});
    at += sequence.length;
  }
  return result;
}

TextRange AlignedText::origin(const TextRange& range) const {
  if (!origins_.empty()) return {origins_[range.begin].begin, origins_[range.end - 1].end};
  TextRange whole = range;
  while (whole.begin > 0 && continues_character(text_[whole.begin])) --whole.begin;
  while (whole.end < text_.size() && continues_character(text_[whole.end])) ++whole.end;
  return {shift_ + whole.begin, shift_ + whole.end};
}

AlignedText AlignedText::slice(const TextRange& range) const {
  AlignedText part(text_.substr(range.begin, range.end - range.begin), shift_ + range.begin, tracked_);
  if (!origins_.empty())
    part.origins_.assign(origins_.begin() + static_cast<ptrdiff_t>(range.begin),
                         origins_.begin() + static_cast<ptrdiff_t>(range.end));
  return part;
}

TextRewriter::TextRewriter(const AlignedText& source) : source_(source) {
  text_.reserve(source.text().size() + source.text().size() / 2);
  if (source.tracked()) origins_.reserve(text_.capacity());
}

void TextRewriter::keep(const TextRange& range) {
  text_.append(source_.text_, range.begin, range.end - range.begin);
  if (!source_.tracked_) return;
  for (size_t at = range.begin; at < range.end; ++at) origins_.push_back(source_.origin({at, at + 1}));
}

void TextRewriter::write(std::string_view bytes, size_t like) {
  text_ += bytes;
  if (source_.tracked_) origins_.insert(origins_.end(), bytes.size(), source_.origin({like, like + 1}));
}

void TextRewriter::write_unfounded(std::string_view bytes) {
  text_ += bytes;
  if (!source_.tracked_) return;
  const size_t start = source_.text_.empty() ? source_.shift_ : source_.origin({0, 1}).begin;
  origins_.insert(origins_.end(), bytes.size(), {start, start});
}

AlignedText TextRewriter::finish() {
  AlignedText result(std::move(text_), source_.shift_, source_.tracked_);
  result.origins_ = std::move(origins_);
  return result;
}

}  // namespace efface
