#include "core/text/unicode_normalization.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <optional>

#include "core/text/utf8.hpp"

namespace efface {
namespace {

/// A character of the result. `change`: 0 when it replaces one of the source's, 1 when it is inserted after
/// the previous one, -n when it swallows n more of the source's.
struct Tagged {
  char32_t code_point;
  int combining_class;
  int change;
};

/// No character of a script with combining or composed forms is below.
constexpr char32_t kFirstCombining = 0x300;
/// Longest full decomposition of one character: U+FDFA.
constexpr size_t kLongestDecomposition = 18;

const utf8proc_property_t* property(char32_t code_point) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(code_point));
}

constexpr bool composes(NormalForm form) { return form == NormalForm::nfc || form == NormalForm::nfkc; }
constexpr bool is_compatible(NormalForm form) { return form == NormalForm::nfkc || form == NormalForm::nfkd; }

/// Nothing before it changes it, and it changes nothing: text may be normalised on both sides apart.
bool is_inert(char32_t c, NormalForm form) {
  if (c < 0x80 || (c < kFirstCombining && form == NormalForm::nfc)) return true;
  const bool hangul = (c >= 0x1100 && c < 0x1200) || (c >= 0xAC00 && c < 0xD7A4);
  const auto* p = property(c);
  constexpr utf8proc_uint16_t kNone = UINT16_MAX;
  return !hangul && p->combining_class == 0 && p->decomp_seqindex == kNone && p->comb_index == kNone;
}

void decompose(char32_t c, bool compatible, std::vector<Tagged>& result) {
  utf8proc_int32_t parts[kLongestDecomposition];
  int boundary_class = 0;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, kLongestDecomposition,
                                             options, &boundary_class);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    const auto part = static_cast<char32_t>(parts[i]);
    result.push_back({part, property(part)->combining_class, i == 0 ? 0 : 1});
  }
}

/// Marks after a starter by rising class, otherwise in order.
void order_marks(std::vector<Tagged>& characters) {
  for (auto begin = characters.begin(); begin != characters.end();) {
    const auto end =
        std::find_if(begin + 1, characters.end(), [](const Tagged& c) { return c.combining_class == 0; });
    std::stable_sort(begin, end,
                     [](const Tagged& a, const Tagged& b) { return a.combining_class < b.combining_class; });
    begin = end;
  }
}

std::optional<char32_t> composition(char32_t first, char32_t second) {
  utf8proc_int32_t pair[3] = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second)};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  if (utf8proc_normalize_utf32(pair, 2, options) != 1) return std::nullopt;
  return static_cast<char32_t>(pair[0]);
}

/// Each starter takes in the marks (and starters next to it) it has a composed form with.
std::vector<Tagged> compose(const std::vector<Tagged>& characters) {
  std::vector<Tagged> result;
  std::optional<size_t> starter;
  for (const Tagged& c : characters) {
    if (starter) {
      const int previous = result.back().combining_class;
      const bool adjacent = result.size() == *starter + 1;
      if (adjacent || previous < c.combining_class)
        if (const auto composed = composition(result[*starter].code_point, c.code_point)) {
          result[*starter].code_point = *composed;
          result[*starter].change += c.change - 1;
          continue;
        }
    }
    result.push_back(c);
    if (c.combining_class == 0) starter = result.size() - 1;
  }
  return result;
}

/// Writes what became of the source's bytes [begin, end).
void write_stretch(const AlignedText& source, const TextRange& range, const std::vector<Tagged>& characters,
                   TextRewriter& rewriter) {
  const std::string& text = source.text();
  size_t at = range.begin;  // the next character of the source that nothing stands for yet
  std::string bytes;
  for (const Tagged& c : characters) {
    bytes.clear();
    append_code_point(bytes, c.code_point);
    if (c.change > 0) {
      if (at == 0)
        rewriter.write_unfounded(bytes);
      else
        rewriter.write(bytes, at - 1);
      continue;
    }
    rewriter.write(bytes, std::min(at, range.end - 1));
    for (int taken = 0; taken <= -c.change && at < range.end; ++taken) at += code_point_length(text[at]);
  }
}

}  // namespace

AlignedText unicode_normalize(const AlignedText& source, NormalForm form) {
  const std::string_view text = source.text();
  TextRewriter rewriter(source);
  std::vector<Tagged> characters;
  size_t done = 0, length = 0;
  for (size_t at = 0, last_inert = 0; at < text.size(); at += length) {
    const char32_t code_point = decode_code_point(text.substr(at), length);
    if (is_inert(code_point, form)) {
      last_inert = at;
      continue;
    }
    // The inert character before may still compose with this one.
    const size_t begin = std::max(last_inert, done);
    rewriter.keep({done, begin});
    size_t end = at + length;
    for (size_t next = 0; end < text.size(); end += next)
      if (is_inert(decode_code_point(text.substr(end), next), form)) break;
    characters.clear();
    for_each_code_point(text.substr(begin, end - begin),
                        [&](char32_t c, size_t, size_t) { decompose(c, is_compatible(form), characters); });
    order_marks(characters);
    if (composes(form)) characters = compose(characters);
    write_stretch(source, {begin, end}, characters, rewriter);
    done = last_inert = at = end;
    length = 0;
  }
  rewriter.keep({done, text.size()});
  return rewriter.finish();
}

}  // namespace efface
