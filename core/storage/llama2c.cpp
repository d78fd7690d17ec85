#include "core/storage/llama2c.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "core/storage/llama_folder.hpp"
#include "core/storage/mapped_file.hpp"
#include "core/storage/pending_folder.hpp"
#include "core/storage/run_directory.hpp"
#include "core/storage/score_merges.hpp"

namespace efface {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kBos = 1, kEos = 2;
constexpr uint64_t kHeader = 7 * sizeof(int32_t);

[[noreturn]] void refuse(const MappedFile& file, const std::string& what) {
  throw Error(ErrorClass::model, file.path().string() + ": " + what);
}

LlamaFolder read_sizes(const MappedFile& file) {
  int32_t header[7];
  if (file.size() < sizeof(header)) refuse(file, "is too short for a model of llama2.c");
  std::memcpy(header, file.data(), sizeof(header));
  constexpr int32_t kLargest = 1 << 18;  // no product of the sizes below overflows
  for (int i = 0; i < 7; ++i)
    if (header[i] == 0 || (header[i] < 0 && i != 5) || header[i] > kLargest || header[i] < -kLargest)
      refuse(file, "is not a model of llama2.c: a size is " + std::to_string(header[i]));
  LlamaFolder model;
  model.hidden_size = header[0];
  model.intermediate_size = header[1];
  model.layers = header[2];
  model.heads = header[3];
  model.key_value_heads = header[4];
  model.vocab_size = std::abs(header[5]);
  model.context = header[6];
  model.tied = header[5] > 0;
  model.bos = kBos;
  model.eos = kEos;
  if (model.hidden_size % (2 * model.heads) != 0 || model.heads % model.key_value_heads != 0)
    refuse(file, "is not a model of llama2.c: its numbers of heads do not divide");
  model.head_size = model.hidden_size / model.heads;
  return model;
}

struct Place {
  int64_t begin;  // in floats after the header
  std::vector<int64_t> shape;
};

/// Where each tensor lies: per kind, the layers one after the other.
std::map<std::string, Place> read_layout(const MappedFile& file, const LlamaFolder& model) {
  const int64_t hidden = model.hidden_size, inner = model.intermediate_size;
  const int64_t keys = model.key_value_heads * model.head_size, head = model.vocab_size * hidden;
  const int64_t rotary = model.context * model.head_size;  // two tables of context x head_size/2
  const int64_t layer_floats = 2 * hidden + 2 * hidden * hidden + 2 * keys * hidden + 3 * inner * hidden;
  const int64_t floats = head + model.layers * layer_floats + hidden + rotary + (model.tied ? 0 : head);
  // Before a table with entries for every layer is made.
  if (kHeader + static_cast<uint64_t>(floats) * sizeof(float) != file.size())
    refuse(file, "has not the size its header asks for");
  std::map<std::string, Place> places;
  int64_t next = 0;
  const auto place = [&](const std::string& name, std::vector<int64_t> shape) {
    const int64_t count = c10::multiply_integers(shape);
    places[name] = {next, std::move(shape)};
    next += count;
  };
  const auto place_layers = [&](const std::string& name, const std::vector<int64_t>& shape) {
    for (int64_t layer = 0; layer < model.layers; ++layer)
      place("model.layers." + std::to_string(layer) + "." + name + ".weight", shape);
  };
  place("model.embed_tokens.weight", {model.vocab_size, hidden});
  place_layers("input_layernorm", {hidden});
  place_layers("self_attn.q_proj", {hidden, hidden});
  place_layers("self_attn.k_proj", {keys, hidden});
  place_layers("self_attn.v_proj", {keys, hidden});
  place_layers("self_attn.o_proj", {hidden, hidden});
  place_layers("post_attention_layernorm", {hidden});
  place_layers("mlp.gate_proj", {inner, hidden});
  place_layers("mlp.down_proj", {hidden, inner});
  place_layers("mlp.up_proj", {inner, hidden});
  place("model.norm.weight", {hidden});
  next += rotary;
  if (!model.tied) place("lm_head.weight", {model.vocab_size, hidden});
  return places;
}

struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<float> scores;
};

/// The longest token's length, then for each token its score (fp32), length (int32) and bytes.
Vocabulary read_vocabulary(const MappedFile& file, int64_t size) {
  Vocabulary vocabulary;
  uint64_t offset = sizeof(int32_t);
  for (int64_t id = 0; id < size; ++id) {
    float score;
    int32_t length;
    if (offset > file.size() || file.size() - offset < sizeof(score) + sizeof(length))
      refuse(file, "is cut short at token " + std::to_string(id));
    std::memcpy(&score, file.data() + offset, sizeof(score));
    std::memcpy(&length, file.data() + offset + sizeof(score), sizeof(length));
    offset += sizeof(score) + sizeof(length);
    if (length < 0 || static_cast<uint64_t>(length) > file.size() - offset)
      refuse(file, "token " + std::to_string(id) + " is longer than the file");
    if (static_cast<size_t>(length) > kLongestMergedToken)
      refuse(file, "token " + std::to_string(id) + " is longer than " + std::to_string(kLongestMergedToken) +
                       " bytes");
    if (std::isnan(score)) refuse(file, "token " + std::to_string(id) + " has a score that is not a number");
    vocabulary.texts.emplace_back(reinterpret_cast<const char*>(file.data()) + offset, length);
    vocabulary.scores.push_back(score);
    offset += static_cast<uint64_t>(length);
  }
  if (size > kBos) vocabulary.texts[kBos] = "<s>";  // "\n<s>\n" in the file, as llama2.c prints it
  if (size > kEos) vocabulary.texts[kEos] = "</s>";
  return vocabulary;
}

Json merges_of(const Vocabulary& vocabulary) {
  std::vector<bool> made(vocabulary.texts.size(), true);
  std::fill_n(made.begin(), std::min<size_t>(made.size(), kEos + 1), false);
  return score_merges({vocabulary.texts.begin(), vocabulary.texts.end()}, vocabulary.scores, made);
}

void write_tokenizer(const MappedFile& file, const LlamaFolder& model, const std::filesystem::path& folder) {
  const Vocabulary vocabulary = read_vocabulary(file, model.vocab_size);
  std::map<std::string, int64_t> ids;
  Json entries = Json::object(), added = Json::array();
  for (int64_t id = 0; id < model.vocab_size; ++id) {
    const std::string& text = vocabulary.texts[id];
    if (!ids.emplace(text, id).second) refuse(file, "the token " + shown(text) + " occurs twice");
    entries[text] = id;
    if (id <= kEos)
      added.push_back({{"id", id},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
  }
  const Json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json pair = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const Json described = {{"id", "<s>"}, {"ids", Json::array({kBos})}, {"tokens", Json::array({"<s>"})}};
  const Json post = {{"type", "TemplateProcessing"},
                     {"single", Json::array({bos, text})},
                     {"pair", Json::array({bos, text, pair})},
                     {"special_tokens", {{"<s>", described}}}};
  const Json decoder = {
      {"type", "Sequence"},
      {"decoders", Json::array({{{"type", "ByteFallback"}},
                                {{"type", "Fuse"}},
                                {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}})}};
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", added},
                          {"normalizer", {{"type", "Prepend"}, {"prepend", " "}}},
                          {"pre_tokenizer", nullptr},
                          {"post_processor", post},
                          {"decoder", decoder},
                          {"model",
                           {{"type", "BPE"},
                            {"dropout", nullptr},
                            {"unk_token", "<unk>"},
                            {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr},
                            {"fuse_unk", true},
                            {"byte_fallback", true},
                            {"ignore_merges", false},
                            {"vocab", entries},
                            {"merges", merges_of(vocabulary)}}}};
  const Json config = {{"add_bos_token", true},
                       {"bos_token", "<s>"},
                       {"eos_token", "</s>"},
                       {"unk_token", "<unk>"},
                       {"clean_up_tokenization_spaces", false},
                       {"model_max_length", model.context},
                       {"tokenizer_class", "PreTrainedTokenizerFast"}};
  try {
    write_text_file(folder / "tokenizer.json", tokenizer.dump(1) + "\n");
  } catch (const nlohmann::json::type_error&) {
    refuse(file, "has a token that is not UTF-8");
  }
  write_text_file(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace

void import_llama2c(const std::filesystem::path& model_path, const std::filesystem::path& tokenizer,
                    const std::filesystem::path& output_folder) {
  const MappedFile file(model_path, ErrorClass::model), tokens(tokenizer, ErrorClass::model);
  const LlamaFolder model = read_sizes(file);
  const auto layout = read_layout(file, model);
  PendingFolder folder(output_folder);
  write_tokenizer(tokens, model, folder.temporary());
  write_llama_folder(folder.temporary(), model, [&](const std::string& name) {
    const Place& place = layout.at(name);
    at::Tensor weight = at::empty(place.shape, at::kFloat);
    std::memcpy(weight.data_ptr(), file.data() + kHeader + place.begin * sizeof(float), weight.nbytes());
    if (name.find(".q_proj.") != std::string::npos) return halves_from_pairs(weight, model.heads);
    if (name.find(".k_proj.") != std::string::npos) return halves_from_pairs(weight, model.key_value_heads);
    return weight;
  });
  folder.publish();
}

}  // namespace efface
