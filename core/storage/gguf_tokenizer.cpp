#include "core/storage/gguf_tokenizer.hpp"

#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "core/storage/run_directory.hpp"

namespace efface {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
    "endif %}";

constexpr int64_t kControlToken = 3, kUserToken = 4;  // values of tokenizer.ggml.token_type

std::optional<std::string> named_token(const GgufFile& gguf, const std::vector<std::string_view>& tokens,
                                       const std::string& role) {
  const std::string key = "tokenizer.ggml." + role + "_token_id";
  if (!gguf.contains(key)) return std::nullopt;
  const int64_t id = gguf.integer(key);
  if (id < 0 || id >= static_cast<int64_t>(tokens.size())) gguf.refuse("key " + key + " is not a token");
  return std::string(tokens[id]);
}

Json added_token(std::string_view text, bool special) {
  return {{"content", text}, {"lstrip", false},      {"normalized", false},
          {"rstrip", false}, {"single_word", false}, {"special", special}};
}

/// A post-processor that puts the BOS token in front.
Json bos_processor(const std::string& bos, int64_t id) {
  const Json special = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const Json first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  return {
      {"type", "TemplateProcessing"},
      {"single", Json::array({special, first})},
      {"pair", Json::array({special, first, second})},
      {"special_tokens", {{bos, {{"id", bos}, {"ids", Json::array({id})}, {"tokens", Json::array({bos})}}}}}};
}

/// Pairs of token texts; both parts and what they make must be tokens.
Json merges_of(const GgufFile& gguf, const std::unordered_map<std::string_view, int64_t>& ids) {
  Json merges = Json::array();
  std::string whole;
  for (const std::string_view merge : gguf.texts("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos) gguf.refuse("the merge " + shown(merge) + " has no second part");
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    whole.assign(left).append(right);
    if (!ids.count(left) || !ids.count(right) || !ids.count(whole))
      gguf.refuse("the merge " + shown(merge) + " is not of tokens");
    merges.push_back(Json::array({left, right}));
  }
  return merges;
}

}  // namespace

int64_t check_gguf_tokenizer(const GgufFile& gguf) {
  const std::string model = gguf.text("tokenizer.ggml.model");
  if (model != "gpt2") gguf.refuse("has the tokenizer " + shown(model), "byte-level BPE (gpt2) is imported");
  const std::string pre = gguf.contains("tokenizer.ggml.pre") ? gguf.text("tokenizer.ggml.pre") : "";
  if (pre != "smollm")
    gguf.refuse("has the pre-tokenizer " + shown(pre) +
                    ", whose rules are not known here; a wrong guess would "
                    "silently change what the model reads",
                "use the model's own Hugging Face folder");
  return static_cast<int64_t>(gguf.texts("tokenizer.ggml.tokens").size());
}

void write_gguf_tokenizer(const GgufFile& gguf, const std::filesystem::path& folder) {
  check_gguf_tokenizer(gguf);
  const auto tokens = gguf.texts("tokenizer.ggml.tokens");
  const auto types = gguf.integers("tokenizer.ggml.token_type");
  if (types.size() != tokens.size()) gguf.refuse("has not one token type for each token");
  std::unordered_map<std::string_view, int64_t> ids;
  Json vocabulary = Json::object(), added = Json::array(), decoder = Json::object();
  auto& entries = vocabulary.get_ref<Json::object_t&>();  // assignment by key would search all before it
  entries.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!ids.emplace(tokens[id], id).second) gguf.refuse("the token " + shown(tokens[id]) + " occurs twice");
    entries.emplace_back(std::string(tokens[id]), id);
    if (types[id] != kControlToken && types[id] != kUserToken) continue;
    const Json token = added_token(tokens[id], types[id] == kControlToken);
    Json with_id = {{"id", id}};
    with_id.update(token);
    added.push_back(with_id);
    decoder[std::to_string(id)] = token;
  }

  Json special = Json::object(), config = {{"add_prefix_space", false}, {"added_tokens_decoder", decoder}};
  const std::pair<const char*, const char*> roles[] = {
      {"bos_token", "bos"}, {"eos_token", "eos"}, {"pad_token", "padding"}, {"unk_token", "unknown"}};
  for (const auto& [name, role] : roles)
    if (const auto token = named_token(gguf, tokens, role)) special[name] = *token;
  const bool add_bos = gguf.boolean("tokenizer.ggml.add_bos_token", false);
  if (add_bos && !special.contains("bos_token")) gguf.refuse("asks for a BOS token and names none");

  const Json level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, level})}}},
      {"post_processor", nullptr},
      {"decoder", level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", std::move(vocabulary)},
        {"merges", merges_of(gguf, ids)}}}};
  if (add_bos)
    tokenizer["post_processor"] =
        bos_processor(special["bos_token"], gguf.integer("tokenizer.ggml.bos_token_id"));

  config["add_bos_token"] = add_bos;
  config.update(special);
  config["chat_template"] = kChatMl;
  config["clean_up_tokenization_spaces"] = false;
  config["model_max_length"] = gguf.integer("llama.context_length");
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  try {
    write_text_file(folder / "tokenizer.json", tokenizer.dump(1) + "\n");
    write_text_file(folder / "tokenizer_config.json", config.dump(2) + "\n");
    write_text_file(folder / "special_tokens_map.json", special.dump(2) + "\n");
  } catch (const nlohmann::json::type_error&) {
    gguf.refuse("has a token that is not UTF-8");
  }
}

}  // namespace efface
