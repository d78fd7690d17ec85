#include "core/text/tokenizer_stages.hpp"

namespace efface {
namespace {

using Ids = std::vector<int64_t>;

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
  return [before, after](Ids ids) {
    ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
    return ids;
  };
}

PostProcessor sequence(const JsonField& field) {
  std::vector<PostProcessor> steps;
  for (const JsonField& item : field["processors"].items()) steps.push_back(make_post_processor(item));
  return [steps](Ids ids) {
    for (const PostProcessor& step : steps) ids = step(std::move(ids));
    return ids;
  };
}

Ids unchanged(Ids ids) { return ids; }

}  // namespace

PostProcessor make_post_processor(const JsonField& field) {
  if (field.is_null()) return unchanged;
  const std::string type = field["type"].text();
  if (type == "ByteLevel") return unchanged;  // it moves offsets, not ids
  if (type == "TemplateProcessing") return template_processing(field);
  if (type == "Sequence") return sequence(field);
  field["type"].fail("post-processor '" + type + "' is not supported");
}

}  // namespace efface
