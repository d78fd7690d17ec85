#include <algorithm>

#include "core/text/pattern.hpp"
#include "core/text/tokenizer_stages.hpp"
#include "core/text/utf8.hpp"

namespace efface {
namespace {

constexpr const char* kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// What becomes of the parts that match when a text is cut.
enum class Behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

Behavior read_behavior(const JsonField& field) {
  const std::string name = field.text();
  if (name == "Isolated") return Behavior::isolated;
  if (name == "Removed") return Behavior::removed;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  field.fail("behavior '" + name + "' is not supported");
}

struct Part {
  Match range;
  bool matched;
};

/// The text's parts in order, matched and not, covering all of it.
std::vector<Part> cover(const std::vector<Match>& matches, size_t length, bool invert) {
  std::vector<Part> parts;
  size_t from = 0;
  for (const Match& match : matches) {
    if (match.begin > from) parts.push_back({{from, match.begin}, invert});
    parts.push_back({match, !invert});
    from = match.end;
  }
  if (from < length) parts.push_back({{from, length}, invert});
  return parts;
}

std::vector<Match> arrange(const std::vector<Part>& parts, Behavior behavior) {
  std::vector<Match> result;
  bool previous = false;
  auto extend_or_push = [&result](const Match& range) {
    if (result.empty())
      result.push_back(range);
    else
      result.back().end = range.end;
  };
  if (behavior == Behavior::merged_with_next) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->matched && !previous && !result.empty())
        result.back().begin = part->range.begin;
      else
        result.push_back(part->range);
      previous = part->matched;
    }
    std::reverse(result.begin(), result.end());
    return result;
  }
  for (const Part& part : parts) {
    const bool extends = (behavior == Behavior::contiguous && part.matched == previous) ||
                         (behavior == Behavior::merged_with_previous && part.matched && !previous);
    if (extends)
      extend_or_push(part.range);
    else if (behavior != Behavior::removed || !part.matched)
      result.push_back(part.range);
    previous = part.matched;
  }
  return result;
}

/// Replaces every unfinished piece by the ranges `ranges_of(piece.text)` of it, empty ones left out.
template <typename Ranges>
void cut(std::vector<Piece>& pieces, Ranges&& ranges_of) {
  std::vector<Piece> result;
  result.reserve(pieces.size());
  for (Piece& piece : pieces) {
    if (piece.id >= 0) {
      result.push_back(std::move(piece));
      continue;
    }
    for (const Match& range : ranges_of(piece.text))
      if (range.end > range.begin)
        result.push_back({piece.text.substr(range.begin, range.end - range.begin), -1,
                          piece.at_start && range.begin == 0});
  }
  pieces = std::move(result);
}

PreTokenizer split(Regex pattern, Behavior behavior, bool invert) {
  return [pattern = std::move(pattern), behavior, invert](std::vector<Piece>& pieces) {
    cut(pieces, [&](const std::string& text) {
      return arrange(cover(pattern.find_all(text), text.size(), invert), behavior);
    });
  };
}

PreTokenizer digits(bool individual) {
  const Behavior behavior = individual ? Behavior::isolated : Behavior::contiguous;
  return [behavior](std::vector<Piece>& pieces) {
    cut(pieces, [&](const std::string& text) {
      std::vector<Match> matches;
      size_t length = 0;
      for (size_t at = 0; at < text.size(); at += length)
        if (is_numeric(decode_code_point(std::string_view(text).substr(at), length)))
          matches.push_back({at, at + length});
      return arrange(cover(matches, text.size(), false), behavior);
    });
  };
}

void to_byte_characters(std::vector<Piece>& pieces) {
  const auto& characters = byte_characters();
  for (Piece& piece : pieces) {
    if (piece.id >= 0) continue;
    std::string mapped;
    mapped.reserve(piece.text.size() + 8);
    for (char byte : piece.text) mapped += characters[static_cast<unsigned char>(byte)];
    piece.text = std::move(mapped);
  }
}

PreTokenizer byte_level(const JsonField& field) {
  const bool prefix = field.boolean_or("add_prefix_space", true);
  PreTokenizer words;
  if (field.boolean_or("use_regex", true)) words = split(Regex(kGpt2Words), Behavior::isolated, false);
  return [prefix, words](std::vector<Piece>& pieces) {
    if (prefix)
      for (Piece& piece : pieces)
        if (piece.id < 0 && !piece.text.starts_with(' ')) piece.text.insert(0, 1, ' ');
    if (words) words(pieces);
    to_byte_characters(pieces);
  };
}

PreTokenizer metaspace(const JsonField& field) {
  const std::string mark = field["replacement"].text();
  const std::string scheme =
      field.text_or("prepend_scheme", field.boolean_or("add_prefix_space", true) ? "always" : "never");
  if (scheme != "always" && scheme != "never" && scheme != "first")
    field["prepend_scheme"].fail("'" + scheme + "' is not supported");
  PreTokenizer cut_at_mark;
  if (field.boolean_or("split", true))
    cut_at_mark = split(Regex::literal(mark), Behavior::merged_with_next, false);
  const Regex space = Regex::literal(" ");
  return [=](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      if (piece.id >= 0) continue;
      piece.text = space.replace_all(piece.text, mark);
      const bool wanted = scheme == "always" || (scheme == "first" && piece.at_start);
      if (wanted && !piece.text.starts_with(mark)) piece.text.insert(0, mark);
    }
    if (cut_at_mark) cut_at_mark(pieces);
  };
}

PreTokenizer sequence(const JsonField& field) {
  std::vector<PreTokenizer> steps;
  for (const JsonField& item : field["pretokenizers"].items()) steps.push_back(make_pre_tokenizer(item));
  return [steps](std::vector<Piece>& pieces) {
    for (const PreTokenizer& step : steps) step(pieces);
  };
}

}  // namespace

PreTokenizer make_pre_tokenizer(const JsonField& field) {
  if (field.is_null()) return [](std::vector<Piece>&) {};
  const std::string type = field["type"].text();
  if (type == "Sequence") return sequence(field);
  if (type == "ByteLevel") return byte_level(field);
  if (type == "Metaspace") return metaspace(field);
  if (type == "Digits") return digits(field.boolean_or("individual_digits", false));
  if (type == "Split")
    return split(read_pattern(field["pattern"]), read_behavior(field["behavior"]),
                 field.boolean_or("invert", false));
  field["type"].fail("pre-tokenizer '" + type + "' is not supported");
}

}  // namespace efface
