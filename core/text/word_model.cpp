#include "core/text/word_model.hpp"

#include <cstdio>

namespace efface {

std::unique_ptr<WordModel> make_word_model(const JsonField& field) {
  // Files of before models had types hold BPE; those of Unigram models have a list of pairs as vocabulary.
  const std::string type = field.text_or("type", field["vocab"].value().is_array() ? "Unigram" : "BPE");
  if (type == "BPE") return make_byte_pair_model(field);
  if (type == "Unigram") return make_unigram_model(field);
  field["type"].fail("'" + type + "' is not supported (BPE and Unigram are)");
}

std::vector<int32_t> byte_token_ids(const Vocabulary& vocabulary) {
  std::vector<int32_t> ids;
  char name[8];
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    const auto found = vocabulary.find(std::string_view(name));
    ids.push_back(found == vocabulary.end() ? -1 : static_cast<int32_t>(found->second));
  }
  return ids;
}

}  // namespace efface
