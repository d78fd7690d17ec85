#include "core/text/pattern.hpp"
#include "core/text/tokenizer_stages.hpp"
#include "core/text/unicode_normalization.hpp"
#include "core/text/utf8.hpp"

namespace efface {
namespace {

Normalizer unicode(NormalForm form) {
  return [form](AlignedText text) { return unicode_normalize(text, form); };
}

AlignedText lowercase_text(AlignedText text) {
  TextRewriter rewriter(text);
  for_each_code_point(text.text(), [&](char32_t code_point, size_t begin, size_t) {
    rewriter.write(lowercase(code_point), begin);
  });
  return rewriter.finish();
}

AlignedText without_marks(AlignedText text) {
  TextRewriter rewriter(text);
  for_each_code_point(text.text(), [&](char32_t code_point, size_t begin, size_t end) {
    if (!is_mark(code_point)) rewriter.keep({begin, end});
  });
  return rewriter.finish();
}

Normalizer strip(const JsonField& field) {
  return [left = field.boolean_or("strip_left", true),
          right = field.boolean_or("strip_right", true)](AlignedText text) {
    TextRange kept{left ? space_at_start(text.text()) : 0, text.text().size()};
    if (right) kept.end = std::max(kept.begin, without_space_at_end(text.text()));
    return kept == TextRange{0, text.text().size()} ? text : text.slice(kept);
  };
}

Normalizer prepend(std::string prefix) {
  return [prefix = std::move(prefix)](AlignedText text) {
    if (text.text().empty()) return text;
    TextRewriter rewriter(text);
    rewriter.write(prefix, 0);
    rewriter.keep({0, text.text().size()});
    return rewriter.finish();
  };
}

Normalizer sequence(const JsonField& field) {
  std::vector<Normalizer> steps;
  for (const JsonField& item : field["normalizers"].items()) steps.push_back(make_normalizer(item));
  return [steps](AlignedText text) {
    for (const Normalizer& step : steps) text = step(std::move(text));
    return text;
  };
}

}  // namespace

Normalizer make_normalizer(const JsonField& field) {
  if (field.is_null()) return [](AlignedText text) { return text; };
  const std::string type = field["type"].text();
  if (type == "NFC") return unicode(NormalForm::nfc);
  if (type == "NFD") return unicode(NormalForm::nfd);
  if (type == "NFKC") return unicode(NormalForm::nfkc);
  if (type == "NFKD") return unicode(NormalForm::nfkd);
  if (type == "Sequence") return sequence(field);
  if (type == "Lowercase") return lowercase_text;
  if (type == "StripAccents") return without_marks;
  if (type == "Strip") return strip(field);
  if (type == "Prepend") return prepend(field["prepend"].text());
  if (type == "ByteLevel") return to_byte_characters;
  if (type == "Replace")
    return [pattern = Pattern(field["pattern"]), content = field["content"].text()](AlignedText text) {
      return pattern.replace_all(text, content);
    };
  field["type"].fail("normalizer '" + type + "' is not supported");
}

}  // namespace efface
