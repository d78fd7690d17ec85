// {"String": ...} or {"Regex": ...}, as normalizers, pre-tokenizers and decoders give their patterns.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/aligned_text.hpp"
#include "core/text/class_pattern.hpp"
#include "core/text/json_field.hpp"
#include "core/text/regex.hpp"

namespace efface {

/// A literal is searched as such; a regular expression of character classes by ClassPattern, which is several
/// times as fast as Oniguruma; any other by Oniguruma.
class Pattern {
 public:
  explicit Pattern(const JsonField& field);
  static Pattern literal(std::string text);
  static Pattern regex(const std::string& expression);

  /// All matches from left to right, none overlapping; `text` is valid UTF-8.
  std::vector<TextRange> find_all(std::string_view text) const;
  /// The replacement has the origin of the last character it replaces.
  AlignedText replace_all(const AlignedText& text, std::string_view replacement) const;
  std::string replace_all(std::string_view text, std::string_view replacement) const;

 private:
  Pattern() = default;
  std::string literal_;
  std::optional<ClassPattern> classes_;
  std::optional<Regex> regex_;
};

}  // namespace efface
