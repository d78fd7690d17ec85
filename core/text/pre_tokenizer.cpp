#include <algorithm>

#include "core/text/class_pattern.hpp"
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

/// Takes the parts of a word in order, matched and not, and appends what the behavior makes of them.
class Arranger {
 public:
  Arranger(Behavior behavior, std::vector<TextRange>& result)
      : behavior_(behavior), result_(result), start_(result.size()) {}

  void add(const TextRange& part, bool matched) {
    const bool first = result_.size() == start_;
    bool joins = false;
    switch (behavior_) {
      case Behavior::isolated:
        break;
      case Behavior::removed:
        if (matched) return;
        break;
      case Behavior::contiguous:
        joins = matched == previous_;
        break;
      case Behavior::merged_with_previous:
        joins = matched && !previous_;
        break;
      case Behavior::merged_with_next:
        joins = previous_ && !matched;
        break;
    }
    if (joins && !first)
      result_.back().end = part.end;
    else
      result_.push_back(part);
    previous_ = matched;
  }

 private:
  Behavior behavior_;
  std::vector<TextRange>& result_;
  size_t start_;
  bool previous_ = false;
};

/// Cuts every word where `matches_of(text of the word)` says; with `invert` the parts between matches count
/// as the matches.
template <typename Matches>
void cut(Words& words, Behavior behavior, bool invert, Matches&& matches_of) {
  std::vector<TextRange> result;
  const std::string_view text = words.text.text();
  for (const TextRange& word : words.ranges) {
    Arranger arranger(behavior, result);
    size_t from = word.begin;
    for (const TextRange& match : matches_of(text.substr(word.begin, word.end - word.begin))) {
      const TextRange range{word.begin + match.begin, word.begin + match.end};
      if (range.begin > from) arranger.add({from, range.begin}, invert);
      arranger.add(range, !invert);
      from = range.end;
    }
    if (from < word.end) arranger.add({from, word.end}, invert);
  }
  std::erase_if(result, [](const TextRange& range) { return range.begin == range.end; });
  words.ranges = std::move(result);
}

using Cut = std::function<void(Words&)>;

Cut split(Pattern pattern, Behavior behavior, bool invert) {
  return [pattern = std::move(pattern), behavior, invert](Words& words) {
    cut(words, behavior, invert, [&](std::string_view text) { return pattern.find_all(text); });
  };
}

/// Every character for which `matches` holds is a match of its own.
Cut split_characters(bool (*matches)(char32_t), Behavior behavior) {
  return [matches, behavior](Words& words) {
    cut(words, behavior, false, [&](std::string_view text) {
      std::vector<TextRange> found;
      for_each_code_point(text, [&](char32_t c, size_t begin, size_t end) {
        if (matches(c)) found.push_back({begin, end});
      });
      return found;
    });
  };
}

/// Puts `prefix` before every word for which `wanted(word's text, its origin)`.
template <typename Wanted>
void prepend(Words& words, std::string_view prefix, Wanted&& wanted) {
  const std::string_view text = words.text.text();
  const auto is_wanted = [&](const TextRange& word) {
    return wanted(text.substr(word.begin, word.end - word.begin), word);
  };
  if (std::none_of(words.ranges.begin(), words.ranges.end(), is_wanted)) return;
  TextRewriter rewriter(words.text);
  std::vector<TextRange> ranges;
  for (const TextRange& word : words.ranges) {
    const size_t begin = rewriter.size();
    if (is_wanted(word)) rewriter.write(prefix, word.begin);
    rewriter.keep(word);
    ranges.push_back({begin, rewriter.size()});
  }
  words = {rewriter.finish(), std::move(ranges)};
}

/// `change` applied to the words' texts, each on its own.
template <typename Change>
void rewrite_words(Words& words, Change&& change) {
  TextRewriter rewriter(words.text);
  std::vector<TextRange> ranges;
  for (const TextRange& word : words.ranges) {
    const size_t begin = rewriter.size();
    change(word, rewriter);
    ranges.push_back({begin, rewriter.size()});
  }
  words = {rewriter.finish(), std::move(ranges)};
}

void write_byte_characters(const AlignedText& text, const TextRange& range, TextRewriter& rewriter) {
  for (size_t at = range.begin; at < range.end; ++at)
    rewriter.write(byte_characters()[static_cast<unsigned char>(text.text()[at])], at);
}

void words_to_byte_characters(Words& words) {
  rewrite_words(words, [&](const TextRange& word, TextRewriter& rewriter) {
    write_byte_characters(words.text, word, rewriter);
  });
}

PreTokenizer byte_level(const JsonField& field) {
  const bool prefix = field.boolean_or("add_prefix_space", true);
  Cut cut_words;
  if (field.boolean_or("use_regex", true))
    cut_words = split(Pattern::regex(kGpt2Words), Behavior::isolated, false);
  return {[prefix, cut_words](Words& words) {
            if (prefix)
              prepend(words, " ",
                      [](std::string_view text, const TextRange&) { return !text.starts_with(' '); });
            if (cut_words) cut_words(words);
          },
          true};
}

PreTokenizer metaspace(const JsonField& field) {
  const std::string mark = field["replacement"].text();
  const std::string scheme =
      field.text_or("prepend_scheme", field.boolean_or("add_prefix_space", true) ? "always" : "never");
  if (scheme != "always" && scheme != "never" && scheme != "first")
    field["prepend_scheme"].fail("'" + scheme + "' is not supported");
  Cut cut_at_mark;
  if (field.boolean_or("split", true))
    cut_at_mark = split(Pattern::literal(mark), Behavior::merged_with_next, false);
  const auto run = [=](Words& words) {
    rewrite_words(words, [&](const TextRange& word, TextRewriter& rewriter) {
      const std::string& text = words.text.text();
      size_t from = word.begin;
      for (size_t at = text.find(' ', from); at < word.end; at = text.find(' ', from)) {
        rewriter.keep({from, at});
        rewriter.write(mark, at);
        from = at + 1;
      }
      rewriter.keep({from, word.end});
    });
    if (scheme != "never")
      prepend(words, mark, [&](std::string_view text, const TextRange& word) {
        return !text.starts_with(mark) && (scheme == "always" || words.text.origin(word).begin == 0);
      });
    if (cut_at_mark) cut_at_mark(words);
  };
  return {run, false, scheme == "first"};
}

PreTokenizer sequence(const JsonField& field) {
  std::vector<Cut> steps;
  PreTokenizer result;
  for (const JsonField& item : field["pretokenizers"].items()) {
    // What follows a byte-level step sees the stand-in characters.
    if (result.byte_level) steps.emplace_back(words_to_byte_characters);
    PreTokenizer step = make_pre_tokenizer(item);
    steps.push_back(std::move(step.cut));
    result.byte_level = step.byte_level;
    result.needs_origins |= step.needs_origins;
  }
  result.cut = [steps](Words& words) {
    for (const Cut& step : steps) step(words);
  };
  return result;
}

}  // namespace

AlignedText to_byte_characters(const AlignedText& text) {
  TextRewriter rewriter(text);
  write_byte_characters(text, {0, text.text().size()}, rewriter);
  return rewriter.finish();
}

PreTokenizer make_pre_tokenizer(const JsonField& field) {
  if (field.is_null()) return {[](Words&) {}};
  const std::string type = field["type"].text();
  if (type == "Sequence") return sequence(field);
  if (type == "ByteLevel") return byte_level(field);
  if (type == "Metaspace") return metaspace(field);
  if (type == "Digits")
    return {split_characters(is_numeric, field.boolean_or("individual_digits", false)
                                             ? Behavior::isolated
                                             : Behavior::contiguous)};
  if (type == "Punctuation")
    return {split_characters(is_punctuation,
                             field.has("behavior") ? read_behavior(field["behavior"]) : Behavior::isolated)};
  if (type == "Whitespace") return {split(Pattern::regex(R"(\w+|[^\w\s]+)"), Behavior::removed, true)};
  if (type == "WhitespaceSplit") return {split_characters(is_whitespace, Behavior::removed)};
  if (type == "CharDelimiterSplit")
    return {split(Pattern::literal(field["delimiter"].text()), Behavior::removed, false)};
  if (type == "Split")
    return {split(Pattern(field["pattern"]), read_behavior(field["behavior"]),
                  field.boolean_or("invert", false))};
  field["type"].fail("pre-tokenizer '" + type + "' is not supported");
}

}  // namespace efface
