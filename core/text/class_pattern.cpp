#include "core/text/class_pattern.hpp"

#include <oniguruma.h>

#include <algorithm>
#include <cctype>
#include <limits>

#include "core/text/regex.hpp"
#include "core/text/utf8.hpp"

namespace efface {

/// A way not taken: go on at `program` from `at`; a repetition may also give characters back down to `least`.
struct Choice {
  uint32_t program;
  size_t at, least;
};

namespace {

constexpr char32_t kLastCodePoint = 0x10FFFF;
constexpr uint32_t kUnbounded = std::numeric_limits<uint32_t>::max();
constexpr size_t kMostClasses = 31;
constexpr uint32_t kAnyCharacter = 1u << kMostClasses;  // set for every character
constexpr size_t kNoMatch = std::string_view::npos;

CodePointRanges sorted(CodePointRanges ranges) {
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

CodePointRanges complement(const CodePointRanges& ranges) {
  CodePointRanges result;
  char32_t next = 0;
  for (const auto& [first, last] : sorted(ranges)) {
    if (first > next) result.emplace_back(next, first - 1);
    next = std::max<char32_t>(next, last + 1);
  }
  if (next <= kLastCodePoint) result.emplace_back(next, kLastCodePoint);
  return result;
}

CodePointRanges class_of_type(int type) {
  const OnigCodePoint* ranges = nullptr;
  OnigCodePoint single_bytes = 0;
  if (ONIG_ENCODING_UTF8->get_ctype_code_range(static_cast<OnigCtype>(type), &single_bytes, &ranges) != 0)
    return {};
  CodePointRanges result;
  for (OnigCodePoint i = 0; i < ranges[0]; ++i)
    result.emplace_back(ranges[1 + 2 * i], std::min<char32_t>(ranges[2 + 2 * i], kLastCodePoint));
  return result;
}

/// A letter and what Oniguruma takes for it without regard to case.
CodePointRanges without_case(char32_t letter) {
  const auto lower = static_cast<char32_t>(letter | 0x20), upper = static_cast<char32_t>(letter & ~0x20u);
  CodePointRanges result{{lower, lower}, {upper, upper}};
  if (lower == 's') result.emplace_back(0x17F, 0x17F);    // long s
  if (lower == 'k') result.emplace_back(0x212A, 0x212A);  // Kelvin sign
  return result;
}

bool is_ascii_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

std::optional<CodePointRanges> named_class(std::string_view name) {
  initialize_oniguruma();
  std::string copy(name);
  auto* bytes = reinterpret_cast<OnigUChar*>(copy.data());
  const int type = ONIG_ENCODING_UTF8->property_name_to_ctype(ONIG_ENCODING_UTF8, bytes, bytes + copy.size());
  if (type < 0) return std::nullopt;
  return class_of_type(type);
}

/// Reads the expression; throws Unsupported for what a ClassPattern cannot hold.
class ClassPatternParser {
 public:
  struct Unsupported {};
  using Operation = ClassPattern::Operation;

  explicit ClassPatternParser(std::string_view text) : text_(text) {}

  ClassPattern parse() {
    do {
      const auto start = static_cast<uint32_t>(pattern_.program_.size());
      const auto first = sequence();
      if (!first) throw Unsupported{};  // an alternative that may match nothing
      emit({Operation::accept});
      pattern_.alternatives_.push_back({*first, start});
    } while (take('|'));
    if (at_ != text_.size()) throw Unsupported{};
    build_table();
    return std::move(pattern_);
  }

 private:
  /// The class bits its first character must meet; nothing when it may be empty.
  std::optional<uint32_t> sequence() {
    uint32_t first = 0;
    bool may_be_empty = true;
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') {
      const auto item_first = item();
      if (!may_be_empty) continue;
      first |= item_first.bits;
      may_be_empty = item_first.may_be_empty;
    }
    if (may_be_empty) return std::nullopt;
    return first;
  }

  struct First {
    uint32_t bits;
    bool may_be_empty;
  };

  First item() {
    if (text_[at_] == '(') return group();
    const uint32_t bit = class_bit(character_class());
    auto [least, most] = quantifier();
    const bool possessive = (least != 1 || most != 1) && !counted_ && take('+');
    emit({Operation::repeat, bit, least, most, possessive});
    return {bit, least == 0};
  }

  First group() {
    if (take("(?!")) return look(Operation::not_ahead);
    if (take("(?=")) return look(Operation::ahead);
    const bool outer = ignore_case_;
    if (take("(?i:"))
      ignore_case_ = true;
    else if (!take("(?:") && !take('('))
      throw Unsupported{};
    const size_t entry = emit({Operation::jump});  // becomes a split when the group is optional
    pattern_.program_[entry].target = static_cast<uint32_t>(entry + 1);
    std::vector<size_t> exits;
    uint32_t first = 0;
    do {
      const size_t split = emit({Operation::split});
      const auto branch = sequence();
      if (!branch) throw Unsupported{};
      first |= *branch;
      exits.push_back(emit({Operation::jump}));
      pattern_.program_[split].target = static_cast<uint32_t>(pattern_.program_.size());
    } while (take('|'));
    emit({Operation::repeat, class_bit({}), 1, 1, false});  // no branch is left: fail
    if (!take(')')) throw Unsupported{};
    ignore_case_ = outer;
    const auto end = static_cast<uint32_t>(pattern_.program_.size());
    for (size_t exit : exits) pattern_.program_[exit].target = end;
    const bool optional = take('?');
    if (at_ < text_.size() && std::string_view("?*+{").find(text_[at_]) != std::string_view::npos)
      throw Unsupported{};
    if (optional) {
      pattern_.program_[entry].operation = Operation::split;
      pattern_.program_[entry].target = end;
    }
    return {first, optional};
  }

  First look(Operation operation) {
    const uint32_t bit = class_bit(character_class());
    if (!take(')')) throw Unsupported{};
    emit({operation, bit});
    return {0, true};
  }

  std::pair<uint32_t, uint32_t> quantifier() {
    counted_ = false;
    std::pair<uint32_t, uint32_t> bounds{1, 1};
    if (take('?'))
      bounds = {0, 1};
    else if (take('*'))
      bounds = {0, kUnbounded};
    else if (take('+'))
      bounds = {1, kUnbounded};
    else if (take('{')) {
      counted_ = true;
      bounds.first = number();
      bounds.second = take(',') ? (peek('}') ? kUnbounded : number()) : bounds.first;
      if (!take('}') || bounds.first > bounds.second) throw Unsupported{};
    }
    if (peek('?') || peek('*') || (counted_ && peek('+'))) throw Unsupported{};  // lazy, or repeated twice
    return bounds;
  }

  uint32_t number() {
    constexpr uint32_t kMost = 1000;
    uint32_t value = 0;
    const size_t from = at_;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) && value < kMost)
      value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
    if (at_ == from || value >= kMost) throw Unsupported{};
    return value;
  }

  CodePointRanges character_class() {
    if (take('[')) return bracket();
    if (at_ >= text_.size()) throw Unsupported{};
    if (text_[at_] == '\\') return escape();
    if (std::string_view(".^$*+?{}()|").find(text_[at_]) != std::string_view::npos) throw Unsupported{};
    return literal(code_point());
  }

  CodePointRanges literal(char32_t c) {
    if (!ignore_case_) return {{c, c}};
    if (c >= 0x80) throw Unsupported{};
    if (!is_ascii_letter(c)) return {{c, c}};
    // Two letters may also be one: a ligature, a sharp s.
    constexpr std::string_view kFirstOfLigature = "sfSF";
    if (kFirstOfLigature.find(static_cast<char>(c)) != std::string_view::npos && at_ < text_.size() &&
        is_ascii_letter(static_cast<unsigned char>(text_[at_])) && !in_bracket_)
      throw Unsupported{};
    return without_case(c);
  }

  CodePointRanges bracket() {
    const bool negated = take('^');
    if (peek(']')) throw Unsupported{};
    in_bracket_ = true;
    CodePointRanges result;
    while (!take(']')) {
      if (at_ >= text_.size() || text_[at_] == '[' || text_.substr(at_).starts_with("&&"))
        throw Unsupported{};
      CodePointRanges part = text_[at_] == '\\' ? escape() : literal(code_point());
      if (peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const CodePointRanges last = text_[at_] == '\\' ? escape() : CodePointRanges{one(code_point())};
        const bool single = part.size() == 1 && part[0].first == part[0].second && last.size() == 1 &&
                            last[0].first == last[0].second && part[0].first <= last[0].first;
        if (!single || ignore_case_) throw Unsupported{};
        part[0].second = last[0].first;
      }
      result.insert(result.end(), part.begin(), part.end());
    }
    in_bracket_ = false;
    return negated ? complement(result) : result;
  }

  static std::pair<char32_t, char32_t> one(char32_t c) { return {c, c}; }

  CodePointRanges escape() {
    ++at_;
    if (at_ >= text_.size()) throw Unsupported{};
    const char c = text_[at_++];
    switch (c) {
      case 'r':
        return {one('\r')};
      case 'n':
        return {one('\n')};
      case 't':
        return {one('\t')};
      case 's':
        return class_of_type(ONIGENC_CTYPE_SPACE);
      case 'S':
        return complement(class_of_type(ONIGENC_CTYPE_SPACE));
      case 'd':
        return class_of_type(ONIGENC_CTYPE_DIGIT);
      case 'D':
        return complement(class_of_type(ONIGENC_CTYPE_DIGIT));
      case 'w':
        return class_of_type(ONIGENC_CTYPE_WORD);
      case 'W':
        return complement(class_of_type(ONIGENC_CTYPE_WORD));
      case 'p':
      case 'P':
        return property(c == 'P');
      default:
        break;
    }
    if (std::isalnum(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80)
      throw Unsupported{};
    return {one(static_cast<unsigned char>(c))};
  }

  CodePointRanges property(bool negated) {
    const size_t close = text_.find('}', at_);
    if (!take('{') || close == std::string_view::npos || ignore_case_) throw Unsupported{};
    if (take('^')) negated = !negated;
    const auto ranges = named_class(text_.substr(at_, close - at_));
    if (!ranges) throw Unsupported{};
    at_ = close + 1;
    return negated ? complement(*ranges) : *ranges;
  }

  char32_t code_point() {
    size_t length = 0;
    const char32_t c = decode_code_point(text_.substr(at_), length);
    at_ += length;
    return c;
  }

  uint32_t class_bit(const CodePointRanges& ranges) {
    const CodePointRanges key = sorted(ranges);
    const auto found = std::find(classes_.begin(), classes_.end(), key);
    if (found != classes_.end()) return 1u << (found - classes_.begin());
    if (classes_.size() == kMostClasses) throw Unsupported{};
    classes_.push_back(key);
    return 1u << (classes_.size() - 1);
  }

  void build_table() {
    std::vector<uint32_t> flat(kLastCodePoint + 1, kAnyCharacter);
    for (size_t c = 0; c < classes_.size(); ++c)
      for (const auto& [first, last] : classes_[c])
        for (char32_t point = first; point <= last; ++point) flat[point] |= 1u << c;
    auto table = std::make_shared<ClassPattern::ClassTable>();
    std::copy_n(flat.begin(), table->ascii.size(), table->ascii.begin());
    for (size_t page = 0; page < flat.size(); page += 256) {
      const auto values = flat.begin() + static_cast<ptrdiff_t>(page);
      // Most pages are like the one before.
      if (page > 0 && std::equal(values, values + 256, table->values.end() - 256)) {
        table->pages.push_back(table->pages.back());
        continue;
      }
      table->pages.push_back(static_cast<uint16_t>(table->values.size() / 256));
      table->values.insert(table->values.end(), values, values + 256);
    }
    pattern_.table_ = std::move(table);
  }

  size_t emit(ClassPattern::Instruction instruction) {
    pattern_.program_.push_back(instruction);
    return pattern_.program_.size() - 1;
  }
  bool peek(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool take(char c) { return peek(c) ? (++at_, true) : false; }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  bool ignore_case_ = false, in_bracket_ = false, counted_ = false;
  std::vector<CodePointRanges> classes_;
  ClassPattern pattern_;
};

std::optional<ClassPattern> ClassPattern::parse(std::string_view expression) {
  initialize_oniguruma();
  if (!is_valid_utf8(expression)) return std::nullopt;
  try {
    return ClassPatternParser(expression).parse();
  } catch (const ClassPatternParser::Unsupported&) {
    return std::nullopt;
  }
}

inline uint32_t ClassPattern::classes_at(std::string_view text, size_t at, size_t& length) const {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) {
    length = 1;
    return table_->ascii[lead];
  }
  const char32_t c = decode_code_point(text.substr(at), length);
  return table_->values[size_t{table_->pages[c >> 8]} * 256 + (c & 0xFF)];
}

size_t ClassPattern::match(std::string_view text, size_t at, uint32_t program,
                           std::vector<Choice>& choices) const {
  choices.clear();
  size_t length = 0;
  while (true) {
    const Instruction& step = program_[program];
    bool failed = false;
    switch (step.operation) {
      case Operation::accept:
        return at;
      case Operation::jump:
        program = step.target;
        break;
      case Operation::split:
        choices.push_back({step.target, at, at});
        ++program;
        break;
      case Operation::ahead:
      case Operation::not_ahead: {
        const bool met = at < text.size() && (classes_at(text, at, length) & step.class_bit);
        failed = met != (step.operation == Operation::ahead);
        ++program;
        break;
      }
      case Operation::repeat: {
        uint32_t count = 0;
        size_t least = at;
        while (count < step.most && at < text.size() && (classes_at(text, at, length) & step.class_bit)) {
          at += length;
          if (++count == step.least) least = at;
        }
        failed = count < step.least;
        ++program;
        if (!failed && !step.possessive && at > least) choices.push_back({program, at, least});
        break;
      }
    }
    if (!failed) continue;
    if (choices.empty()) return kNoMatch;
    Choice& choice = choices.back();
    program = choice.program;
    at = choice.at;
    if (at == choice.least) {
      choices.pop_back();
      continue;
    }
    do --at;  // one character back
    while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    choice.at = at;
    if (at == choice.least) choices.pop_back();
  }
}

std::vector<TextRange> ClassPattern::find_all(std::string_view text) const {
  std::vector<TextRange> matches;
  std::vector<Choice> choices;
  for (size_t at = 0, length = 0; at < text.size();) {
    const uint32_t classes = classes_at(text, at, length);
    size_t end = kNoMatch;
    for (const Alternative& alternative : alternatives_)
      if (classes & alternative.first) {
        end = match(text, at, alternative.program, choices);
        if (end != kNoMatch) break;
      }
    if (end == kNoMatch) {
      at += length;
    } else {
      matches.push_back({at, end});
      at = end;
    }
  }
  return matches;
}

}  // namespace efface
