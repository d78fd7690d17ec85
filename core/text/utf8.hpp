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

/// `bytes` with every maximal invalid sequence replaced by U+FFFD.
std::string valid_utf8(std::string_view bytes);
bool is_valid_utf8(std::string_view bytes);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// Unicode normalisation of valid UTF-8.
std::string unicode_normalize(const std::string& text, NormalForm form);

bool is_numeric(char32_t code_point);     ///< categories Nd, Nl, No
bool is_whitespace(char32_t code_point);  ///< property White_Space
bool is_word(char32_t code_point);        ///< letters, marks, decimal digits, letter numbers, connectors

/// The printable stand-ins of the 256 bytes in byte-level vocabularies (GPT-2): UTF-8 of each byte's
/// character.
const std::array<std::string, 256>& byte_characters();
/// The byte a stand-in character means, -1 for other characters.
int byte_of_character(char32_t code_point);

}  // namespace efface
