#include "core/text/pattern.hpp"
#include "core/text/tokenizer_stages.hpp"
#include "core/text/utf8.hpp"

namespace efface {
namespace {

Normalizer unicode(NormalForm form) {
  return [form](const std::string& text) { return unicode_normalize(text, form); };
}

Normalizer sequence(const JsonField& field) {
  std::vector<Normalizer> steps;
  for (const JsonField& item : field["normalizers"].items()) steps.push_back(make_normalizer(item));
  return [steps](const std::string& text) {
    std::string result = text;
    for (const Normalizer& step : steps) result = step(result);
    return result;
  };
}

}  // namespace

Normalizer make_normalizer(const JsonField& field) {
  if (field.is_null()) return [](const std::string& text) { return text; };
  const std::string type = field["type"].text();
  if (type == "NFC") return unicode(NormalForm::nfc);
  if (type == "NFD") return unicode(NormalForm::nfd);
  if (type == "NFKC") return unicode(NormalForm::nfkc);
  if (type == "NFKD") return unicode(NormalForm::nfkd);
  if (type == "Sequence") return sequence(field);
  if (type == "Prepend")
    return [prefix = field["prepend"].text()](const std::string& text) {
      return text.empty() ? text : prefix + text;
    };
  if (type == "Replace")
    return [pattern = read_pattern(field["pattern"]), content = field["content"].text()](
               const std::string& text) { return pattern.replace_all(text, content); };
  field["type"].fail("normalizer '" + type + "' is not supported");
}

}  // namespace efface
