// A regular expression in Oniguruma's dialect, the one the patterns of tokenizer.json are written in.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/aligned_text.hpp"

namespace efface {

/// Throws Error(model) when the library cannot be used.
void initialize_oniguruma();

class Regex {
 public:
  /// Throws Error(model) with Oniguruma's message when `pattern` is not valid.
  explicit Regex(const std::string& pattern);

  /// All matches from left to right, none overlapping; `text` is valid UTF-8. Safe to call from many threads.
  std::vector<TextRange> find_all(std::string_view text) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace efface
