// A text on its way to ids that remembers which bytes of the original each of its bytes came from.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace efface {

/// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0, end = 0;
  bool operator==(const TextRange&) const = default;
};

/// Valid UTF-8, and per byte the range of the original text it stands for: of a character kept as it is, all
/// of the character's bytes.
class AlignedText {
 public:
  /// `text` as it stands in the original from byte `shift` on. Origins are kept only if `tracked`.
  explicit AlignedText(std::string text, size_t shift = 0, bool tracked = true)
      : text_(std::move(text)), shift_(shift), tracked_(tracked) {}
  /// Any bytes: what is not UTF-8 becomes U+FFFD, a maximal invalid sequence each.
  static AlignedText from_bytes(std::string_view bytes, bool tracked);

  const std::string& text() const { return text_; }
  bool tracked() const { return tracked_; }
  /// What text()[range] came from; range is not empty.
  TextRange origin(const TextRange& range) const;
  AlignedText slice(const TextRange& range) const;

 private:
  friend class TextRewriter;
  std::string text_;
  std::vector<TextRange> origins_;  // one per byte; empty while the text is the original's, from shift_ on
  size_t shift_ = 0;
  bool tracked_ = true;
};

/// Builds a changed text from left to right, origins along with it.
class TextRewriter {
 public:
  explicit TextRewriter(const AlignedText& source);

  void keep(const TextRange& range);  ///< the source's bytes as they are
  /// New bytes that stand for the same as the source's byte `like`.
  void write(std::string_view bytes, size_t like);
  /// New bytes before everything, which stand for nothing: an empty range where the source begins.
  void write_unfounded(std::string_view bytes);
  size_t size() const { return text_.size(); }
  AlignedText finish();

 private:
  const AlignedText& source_;
  std::string text_;
  std::vector<TextRange> origins_;
};

}  // namespace efface
