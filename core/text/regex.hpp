// A regular expression in Oniguruma's dialect, the one the patterns of tokenizer.json are written in.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace efface {

/// Where a match lies: text[begin, end), in bytes.
struct Match {
  size_t begin = 0, end = 0;
};

class Regex {
 public:
  /// Throws Error(model) with Oniguruma's message when `pattern` is not valid.
  explicit Regex(const std::string& pattern);
  /// Matches exactly `text`.
  static Regex literal(std::string_view text);

  /// All matches from left to right, none overlapping; `text` is valid UTF-8. Safe to call from many threads.
  std::vector<Match> find_all(std::string_view text) const;
  std::string replace_all(std::string_view text, std::string_view replacement) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace efface
