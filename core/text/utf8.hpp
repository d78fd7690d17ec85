// UTF-8, code points and the two facts about them that tokenizers ask for.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace efface {

/// One code point of valid UTF-8 starting at text[0]; `length` is set to its bytes (1 to 4).
char32_t decode_code_point(std::string_view text, size_t& length);
void append_code_point(std::string& text, char32_t code_point);
/// Number of bytes of the code point that starts with `lead`, in valid UTF-8.
size_t code_point_length(char lead);
/// Where the last character of `text`, which is not empty, begins.
size_t start_of_last_character(std::string_view text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

struct Utf8Sequence {
  size_t length;  ///< bytes
  bool valid;
};
/// What bytes[0] begins: a well-formed sequence of the Unicode standard (table 3-7), else its maximal
/// subpart.
Utf8Sequence next_sequence(std::string_view bytes);
/// `bytes` with every maximal invalid sequence replaced by U+FFFD.
std::string valid_utf8(std::string_view bytes);
bool is_valid_utf8(std::string_view bytes);
/// Calls f(code_point, begin, end) for each character of valid UTF-8.
template <typename F>
void for_each_code_point(std::string_view text, F&& f) {
  size_t length = 0;
  for (size_t at = 0; at < text.size(); at += length) {
    const char32_t code_point = decode_code_point(text.substr(at), length);
    f(code_point, at, at + length);
  }
}

bool is_numeric(char32_t code_point);      ///< categories Nd, Nl, No
bool is_mark(char32_t code_point);         ///< categories Mn, Mc, Me
bool is_punctuation(char32_t code_point);  ///< ASCII punctuation and categories P*
bool is_whitespace(char32_t code_point);   ///< property White_Space
/// Full lower case of one character, without context.
std::string lowercase(char32_t code_point);

/// The printable stand-ins of the 256 bytes in byte-level vocabularies (GPT-2): UTF-8 of each byte's
/// character.
const std::array<std::string, 256>& byte_characters();
/// The byte a stand-in character means, -1 for other characters.
int byte_of_character(char32_t code_point);

}  // namespace efface
