// Regular expressions made of character classes: the ones that cut text into words before byte-pair encoding.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/aligned_text.hpp"

namespace efface {

/// A backtracking matcher for the part of Oniguruma's dialect that pre-tokenizers use: alternatives, groups
/// (also optional and case-insensitive ones), literals, classes with {m,n} ? * + and their possessive forms,
/// and a single class looked ahead. Classes are Oniguruma's own. Matches are the same as Oniguruma's.
class ClassPattern {
 public:
  /// Nothing when `expression` holds anything else.
  static std::optional<ClassPattern> parse(std::string_view expression);
  std::vector<TextRange> find_all(std::string_view text) const;

 private:
  friend class ClassPatternParser;
  enum class Operation : uint8_t { repeat, split, jump, ahead, not_ahead, accept };
  /// repeat: characters of the class, `least` to `most`; split: go on here, on failure at `target`.
  struct Instruction {
    Operation operation;
    uint32_t class_bit = 0;
    uint32_t least = 1, most = 1;
    bool possessive = false;
    uint32_t target = 0;
  };
  struct Alternative {
    uint32_t first;  // class bits a character must meet for this alternative to be worth trying
    uint32_t program;
  };
  /// Per code point the bits of the classes it is in.
  struct ClassTable {
    std::array<uint32_t, 128> ascii{};
    std::vector<uint16_t> pages;   // by code point / 256
    std::vector<uint32_t> values;  // 256 a page
  };

  uint32_t classes_at(std::string_view text, size_t at, size_t& length) const;
  size_t match(std::string_view text, size_t at, uint32_t program, std::vector<struct Choice>& choices) const;

  std::vector<Instruction> program_;
  std::vector<Alternative> alternatives_;
  std::shared_ptr<const ClassTable> table_;
};

/// [first, last] ranges of the code points of a class, as Oniguruma knows it.
using CodePointRanges = std::vector<std::pair<char32_t, char32_t>>;
/// `name` as in \p{name}; nothing when there is no such class.
std::optional<CodePointRanges> named_class(std::string_view name);

}  // namespace efface
