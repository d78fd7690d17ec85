#include <algorithm>

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
  return [before, after](Encoding& encoding, const TokenNames&, bool add_special) {
    if (add_special) surround(encoding, before, after);
  };
}

/// Bytes of spaces, byte-level ones among them, at the token's start (or end); `count` of them are found.
size_t spaces(std::string_view token, bool at_end, size_t& count) {
  const std::string& space = byte_characters()[' '];
  size_t bytes = 0;
  count = 0;
  while (!token.empty()) {
    if (at_end ? token.ends_with(space) : token.starts_with(space)) {
      at_end ? token.remove_suffix(space.size()) : token.remove_prefix(space.size());
      ++bytes;  // it stands for one
    } else {
      size_t from = 0, length = 0;
      if (at_end)
        for (from = token.size() - 1; from > 0 && (static_cast<unsigned char>(token[from]) & 0xC0) == 0x80;)
          --from;
      if (!is_whitespace(decode_code_point(token.substr(from), length))) break;
      at_end ? token.remove_suffix(length) : token.remove_prefix(length);
      bytes += length;
    }
    ++count;
  }
  return bytes;
}

/// Leaves the spaces around a token out of its offsets; with `add_prefix_space` a single space before a token
/// at the start is taken for the one that was added, which has no bytes to leave out.
PostProcessor trim_offsets(bool add_prefix_space) {
  return [add_prefix_space](Encoding& encoding, const TokenNames& names, bool) {
    for (size_t i = 0; i < encoding.offsets.size(); ++i) {
      TextRange& range = encoding.offsets[i];
      const std::string& token = names[static_cast<size_t>(encoding.ids[i])];
      size_t leading_count = 0, trailing_count = 0;
      size_t leading = spaces(token, false, leading_count);
      const size_t trailing = spaces(token, true, trailing_count);
      if (leading_count == 1 && (i == 0 || range.begin == 0) && add_prefix_space) leading = 0;
      if (leading_count > 0) range.begin = std::min(range.begin + leading, range.end);
      if (trailing_count > 0 && range.end >= trailing)
        range.end = std::max(range.end - trailing, range.begin);
    }
  };
}

PostProcessor sequence(const JsonField& field) {
  std::vector<PostProcessor> steps;
  for (const JsonField& item : field["processors"].items()) steps.push_back(make_post_processor(item));
  return [steps](Encoding& encoding, const TokenNames& names, bool add_special) {
    for (const PostProcessor& step : steps) step(encoding, names, add_special);
  };
}

void unchanged(Encoding&, const TokenNames&, bool) {}

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
