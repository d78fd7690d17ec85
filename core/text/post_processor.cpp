#include "core/text/tokenizer_stages.hpp"
#include "core/text/utf8.hpp"

namespace efface {
namespace {

using Ids = std::vector<int64_t>;

void surround(Encoding& encoding, const Ids& before, const Ids& after) {
  auto& [ids, offsets] = encoding;
  const bool with_offsets = !offsets.empty() || ids.empty();
  ids.insert(ids.begin(), before.begin(), before.end());
  ids.insert(ids.end(), after.begin(), after.end());
  if (!with_offsets) return;
  offsets.insert(offsets.begin(), before.size(), {});
  offsets.insert(offsets.end(), after.size(), {});
}

/// Ids before and after the text, from the template for a single sequence.
PostProcessor template_processing(const JsonField& field) {
  Ids before, after;
  bool seen = false;
  for (const JsonField& item : field["single"].items()) {
    if (item.has("Sequence")) {
      seen = true;
      continue;
    }
    const std::string name = item["SpecialToken"]["id"].text();
    for (const JsonField& id : field["special_tokens"][name]["ids"].items())
      (seen ? after : before).push_back(id.integer());
  }
  if (!seen) field["single"].fail("a template without the text itself is not supported");
  return [before, after](Encoding& encoding, std::string_view, const TokenNames&, bool add_special) {
    if (add_special) surround(encoding, before, after);
  };
}

/// White space, byte-level or not, at the token's start or end.
size_t count_spaces(std::string_view token, bool at_end) {
  const std::string& space = byte_characters()[' '];
  size_t count = 0, length = 0;
  for (; !token.empty(); ++count) {
    const size_t from = at_end ? start_of_last_character(token) : 0;
    const char32_t c = decode_code_point(token.substr(from), length);
    if (token.substr(from, length) != space && !is_whitespace(c)) break;
    at_end ? token.remove_suffix(length) : token.remove_prefix(length);
  }
  return count;
}

/// Leaves the spaces around a token out of its offsets; with `add_prefix_space` a single space before a token
/// at the start is taken for the one that was added, which has nothing to leave out.
PostProcessor trim_offsets(bool add_prefix_space) {
  return [add_prefix_space](Encoding& encoding, std::string_view text, const TokenNames& names, bool) {
    for (size_t i = 0; i < encoding.offsets.size(); ++i) {
      TextRange& range = encoding.offsets[i];
      // An added token may have taken spaces along that its name lacks.
      std::string_view token = names[static_cast<size_t>(encoding.ids[i])];
      const std::string_view written = text.substr(range.begin, range.end - range.begin);
      if (written.find(token) != std::string_view::npos) token = written;
      size_t leading = count_spaces(token, false);
      if (leading == 1 && (i == 0 || range.begin == 0) && add_prefix_space) leading = 0;
      for (; leading > 0 && range.begin < range.end; --leading)
        range.begin += next_sequence(text.substr(range.begin)).length;
      for (size_t trailing = count_spaces(token, true); trailing > 0 && range.begin < range.end; --trailing)
        range.end = start_of_last_character(text.substr(0, range.end));
    }
  };
}

PostProcessor sequence(const JsonField& field) {
  std::vector<PostProcessor> steps;
  for (const JsonField& item : field["processors"].items()) steps.push_back(make_post_processor(item));
  return [steps](Encoding& encoding, std::string_view text, const TokenNames& names, bool add_special) {
    for (const PostProcessor& step : steps) step(encoding, text, names, add_special);
  };
}

void unchanged(Encoding&, std::string_view, const TokenNames&, bool) {}

}  // namespace

PostProcessor make_post_processor(const JsonField& field) {
  if (field.is_null()) return unchanged;
  const std::string type = field["type"].text();
  if (type == "ByteLevel") {
    if (!field.boolean_or("trim_offsets", true)) return unchanged;
    return trim_offsets(field.boolean_or("add_prefix_space", true));
  }
  if (type == "TemplateProcessing") return template_processing(field);
  if (type == "Sequence") return sequence(field);
  field["type"].fail("post-processor '" + type + "' is not supported");
}

}  // namespace efface
