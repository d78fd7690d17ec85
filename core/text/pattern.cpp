#include "core/text/pattern.hpp"

namespace efface {

Pattern::Pattern(const JsonField& field)
    : Pattern(field.has("String") ? literal(field["String"].text()) : regex(field["Regex"].text())) {}

Pattern Pattern::literal(std::string text) {
  if (text.empty()) return regex("");
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

Pattern Pattern::regex(const std::string& expression) {
  Pattern pattern;
  pattern.classes_ = ClassPattern::parse(expression);
  if (!pattern.classes_) pattern.regex_.emplace(expression);
  return pattern;
}

std::vector<TextRange> Pattern::find_all(std::string_view text) const {
  if (regex_) return regex_->find_all(text);
  if (classes_) return classes_->find_all(text);
  std::vector<TextRange> matches;
  for (size_t at = text.find(literal_); at != std::string_view::npos;
       at = text.find(literal_, matches.back().end))
    matches.push_back({at, at + literal_.size()});
  return matches;
}

AlignedText Pattern::replace_all(const AlignedText& text, std::string_view replacement) const {
  TextRewriter rewriter(text);
  size_t from = 0;
  for (const TextRange& match : find_all(text.text())) {
    rewriter.keep({from, match.begin});
    if (match.end == 0)
      rewriter.write_unfounded(replacement);
    else
      rewriter.write(replacement, match.end - 1);
    from = match.end;
  }
  rewriter.keep({from, text.text().size()});
  return rewriter.finish();
}

std::string Pattern::replace_all(std::string_view text, std::string_view replacement) const {
  return replace_all(AlignedText(std::string(text), 0, false), replacement).text();
}

}  // namespace efface
