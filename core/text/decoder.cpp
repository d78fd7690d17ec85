#include <charconv>

#include "core/text/pattern.hpp"
#include "core/text/tokenizer_stages.hpp"
#include "core/text/utf8.hpp"

namespace efface {
namespace {

using Tokens = std::vector<std::string>;

Tokens fuse(const Tokens& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return {text};
}

/// The bytes a token's stand-in characters mean; the token itself where one of them means none.
std::string bytes_of(const std::string& token) {
  std::string bytes;
  size_t length = 0;
  for (size_t at = 0; at < token.size(); at += length) {
    const int byte = byte_of_character(decode_code_point(std::string_view(token).substr(at), length));
    if (byte < 0) return token;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

Tokens byte_level(const Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += bytes_of(token);
  return {valid_utf8(bytes)};
}

/// "<0x41>" -> 0x41; -1 for any other token.
int fallback_byte(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? byte : -1;
}

/// Runs of byte tokens become the text they spell, or one U+FFFD a byte where they spell none.
Tokens byte_fallback(const Tokens& tokens) {
  Tokens result;
  std::string run;
  auto flush = [&] {
    if (run.empty()) return;
    if (is_valid_utf8(run))
      result.push_back(run);
    else
      result.insert(result.end(), run.size(), std::string(kReplacementCharacter));
    run.clear();
  };
  for (const std::string& token : tokens) {
    if (const int byte = fallback_byte(token); byte >= 0) {
      run += static_cast<char>(byte);
      continue;
    }
    flush();
    result.push_back(token);
  }
  flush();
  return result;
}

Decoder strip(const JsonField& field) {
  return [content = field["content"].text(), start = field["start"].integer(),
          stop = field["stop"].integer()](Tokens tokens) {
    for (std::string& token : tokens) {
      for (int64_t i = 0; i < start && token.starts_with(content); ++i) token.erase(0, content.size());
      for (int64_t i = 0; i < stop && token.ends_with(content); ++i)
        token.erase(token.size() - content.size());
    }
    return tokens;
  };
}

Decoder metaspace(const JsonField& field) {
  const bool never =
      field.text_or("prepend_scheme", "always") == "never" || !field.boolean_or("add_prefix_space", true);
  return [mark = Pattern::literal(field["replacement"].text()), never](Tokens tokens) {
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = mark.replace_all(std::string_view(tokens[i]), i == 0 && !never ? "" : " ");
    return tokens;
  };
}

Decoder sequence(const JsonField& field) {
  std::vector<Decoder> steps;
  for (const JsonField& item : field["decoders"].items()) steps.push_back(make_decoder(item));
  return [steps](Tokens tokens) {
    for (const Decoder& step : steps) tokens = step(std::move(tokens));
    return tokens;
  };
}

Tokens separate_by_spaces(Tokens tokens) {
  for (size_t i = 1; i < tokens.size(); ++i) tokens[i].insert(0, 1, ' ');
  return tokens;
}

}  // namespace

Decoder make_decoder(const JsonField& field) {
  if (field.is_null()) return separate_by_spaces;
  const std::string type = field["type"].text();
  if (type == "ByteLevel") return byte_level;
  if (type == "ByteFallback") return byte_fallback;
  if (type == "Fuse") return fuse;
  if (type == "Strip") return strip(field);
  if (type == "Metaspace") return metaspace(field);
  if (type == "Sequence") return sequence(field);
  if (type == "Replace")
    return [pattern = Pattern(field["pattern"]), content = field["content"].text()](Tokens tokens) {
      for (std::string& token : tokens) token = pattern.replace_all(std::string_view(token), content);
      return tokens;
    };
  field["type"].fail("decoder '" + type + "' is not supported");
}

}  // namespace efface
