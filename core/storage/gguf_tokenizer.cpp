#include "core/storage/gguf_tokenizer.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "core/storage/run_directory.hpp"
#include "core/storage/score_merges.hpp"

namespace efface {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
    "endif %}";

// Values of tokenizer.ggml.token_type.
enum TokenType : int64_t { kNormalToken = 1, kUnknownToken = 2, kControlToken = 3, kUserToken = 4 };

constexpr const char* kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

Json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

/// Words, with numbers cut into groups of what `number` matches; then byte-level.
Json split_words(const std::string& number) {
  const std::string words = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" + number +
                            R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", words}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}};
}

Json split_digits() {
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, byte_level(true)})}};
}

/// What tokenizer.ggml.pre says of a byte-level BPE.
struct PreTokenizer {
  const char* name;
  Json (*rules)();
  bool normalises = false;       // to NFC
  bool whole_words = false;      // a word that is a token is not merged up to it
  bool begins_with_bos = false;  // where the file does not say
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"gpt-2", [] { return byte_level(true); }},
    {"smollm", split_digits},
    {"llama-bpe", [] { return split_words(R"(\p{N}{1,3})"); }, false, true, true},
    {"qwen2", [] { return split_words(R"(\p{N})"); }, true}};

bool is_sentencepiece(const GgufFile& gguf) { return gguf.text("tokenizer.ggml.model") == "llama"; }

const PreTokenizer& pre_tokenizer_of(const GgufFile& gguf) {
  const std::string pre = gguf.contains("tokenizer.ggml.pre") ? gguf.text("tokenizer.ggml.pre") : "";
  for (const PreTokenizer& known : kPreTokenizers)
    if (pre == known.name) return known;
  gguf.refuse(
      "key tokenizer.ggml.pre: has the pre-tokenizer " + shown(pre) +
          ", whose rules are not known here; a wrong guess would silently change what the model reads",
      "use the model's own Hugging Face folder");
}

/// The file's tokens, as both kinds of tokenizer need them. Views into the mapped file.
struct Vocabulary {
  std::vector<std::string_view> texts;
  std::vector<int64_t> types;
  std::unordered_map<std::string_view, int64_t> ids;

  explicit Vocabulary(const GgufFile& gguf)
      : texts(gguf.texts("tokenizer.ggml.tokens")), types(gguf.integers("tokenizer.ggml.token_type")) {
    if (types.size() != texts.size())
      gguf.refuse("key tokenizer.ggml.token_type: has not one type for each token");
    for (size_t id = 0; id < texts.size(); ++id)
      if (!ids.emplace(texts[id], id).second)
        gguf.refuse("key tokenizer.ggml.tokens: the token " + shown(texts[id]) + " occurs twice");
  }

  bool is_special(size_t id) const { return types[id] == kControlToken || types[id] == kUnknownToken; }

  Json entries() const {
    Json vocabulary = Json::object();
    auto& entries = vocabulary.get_ref<Json::object_t&>();  // assignment by key would search all before it
    entries.reserve(texts.size());
    for (size_t id = 0; id < texts.size(); ++id) entries.emplace_back(std::string(texts[id]), id);
    return vocabulary;
  }

  /// Those that are found in a text before it is split, by id.
  std::vector<std::pair<size_t, Json>> added() const {
    std::vector<std::pair<size_t, Json>> added;
    for (size_t id = 0; id < texts.size(); ++id)
      if (is_special(id) || types[id] == kUserToken)
        added.emplace_back(id, Json{{"content", texts[id]},
                                    {"lstrip", false},
                                    {"normalized", false},
                                    {"rstrip", false},
                                    {"single_word", false},
                                    {"special", is_special(id)}});
    return added;
  }
};

/// bos_token, eos_token, ... and their texts.
Json special_tokens(const GgufFile& gguf, const Vocabulary& vocabulary) {
  const std::pair<const char*, const char*> roles[] = {
      {"bos_token", "bos"}, {"eos_token", "eos"}, {"pad_token", "padding"}, {"unk_token", "unknown"}};
  Json special = Json::object();
  for (const auto& [name, role] : roles) {
    const std::string key = std::string("tokenizer.ggml.") + role + "_token_id";
    if (!gguf.contains(key)) continue;
    const int64_t id = gguf.integer(key);
    if (id < 0 || id >= static_cast<int64_t>(vocabulary.texts.size()))
      gguf.refuse("key " + key + " is not a token");
    special[name] = vocabulary.texts[id];
  }
  return special;
}

/// Pairs of token texts; both parts and what they make must be tokens.
Json listed_merges(const GgufFile& gguf, const Vocabulary& vocabulary) {
  const auto& ids = vocabulary.ids;
  Json merges = Json::array();
  std::string whole;
  for (const std::string_view merge : gguf.texts("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos)
      gguf.refuse("key tokenizer.ggml.merges: the merge " + shown(merge) + " has no second part");
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    whole.assign(left).append(right);
    if (!ids.count(left) || !ids.count(right) || !ids.count(whole))
      gguf.refuse("key tokenizer.ggml.merges: the merge " + shown(merge) + " is not of tokens");
    merges.push_back(Json::array({left, right}));
  }
  return merges;
}

/// SentencePiece merges the pair whose token has the best score: the scores are the merges.
Json merges_by_score(const GgufFile& gguf, const Vocabulary& vocabulary) {
  const auto scores = gguf.numbers("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.texts.size())
    gguf.refuse("key tokenizer.ggml.scores: has not one score for each token");
  std::vector<bool> made;
  for (size_t id = 0; id < scores.size(); ++id) {
    made.push_back(vocabulary.types[id] == kNormalToken || vocabulary.types[id] == kUserToken);
    if (std::isnan(scores[id]))
      gguf.refuse("key tokenizer.ggml.scores: that of token " + std::to_string(id) + " is not a number");
    if (vocabulary.texts[id].size() > kLongestMergedToken)
      gguf.refuse("key tokenizer.ggml.tokens: token " + std::to_string(id) + " is longer than " +
                  std::to_string(kLongestMergedToken) + " bytes");
  }
  return score_merges(vocabulary.texts, scores, made);
}

/// tokenizer.json without what both kinds share.
Json byte_level_parts(const GgufFile& gguf, const Vocabulary& vocabulary) {
  const PreTokenizer& pre = pre_tokenizer_of(gguf);
  return {{"normalizer", pre.normalises ? Json{{"type", "NFC"}} : Json(nullptr)},
          {"pre_tokenizer", pre.rules()},
          {"decoder", byte_level(true)},
          {"model",
           {{"unk_token", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", pre.whole_words},
            {"merges", listed_merges(gguf, vocabulary)}}}};
}

Json sentencepiece_parts(const GgufFile& gguf, const Vocabulary& vocabulary, const Json& special) {
  const bool space_first = gguf.boolean("tokenizer.ggml.add_space_prefix", true);
  Json normalizers = Json::array(), decoders = Json::array();
  if (space_first) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}});
  decoders.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}});
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (space_first) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", nullptr},
          {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
          {"model",
           {{"unk_token", special.contains("unk_token") ? special["unk_token"] : Json(nullptr)},
            {"fuse_unk", true},
            {"byte_fallback", vocabulary.ids.count("<0x00>") > 0},
            {"ignore_merges", false},
            {"merges", merges_by_score(gguf, vocabulary)}}}};
}

/// Puts the begin and the end of a text where the file asks for them; null where it asks for neither.
Json post_processor(const GgufFile& gguf, const Json& special, bool begin, bool end) {
  if (!begin && !end) return nullptr;
  Json single = Json::array(), pair = Json::array(), described = Json::object();
  const auto add_special = [&](const std::string& role) {
    if (!special.contains(role + "_token"))
      gguf.refuse("key tokenizer.ggml.add_" + role + "_token: asks for a token that " + "tokenizer.ggml." +
                  role + "_token_id does not name");
    const Json text = special[role + "_token"];
    const int64_t id = gguf.integer("tokenizer.ggml." + role + "_token_id");
    described[text.get<std::string>()] = {
        {"id", text}, {"ids", Json::array({id})}, {"tokens", Json::array({text})}};
    for (Json* list : {&single, &pair}) list->push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
  };
  if (begin) add_special("bos");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back(single.back());
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  if (end) add_special("eos");
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", described}};
}

}  // namespace

int64_t check_gguf_tokenizer(const GgufFile& gguf) {
  const std::string model = gguf.text("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama")
    gguf.refuse("key tokenizer.ggml.model: has the tokenizer " + shown(model),
                "byte-level BPE (gpt2) and SentencePiece's BPE (llama) are imported");
  if (model == "gpt2") pre_tokenizer_of(gguf);
  return static_cast<int64_t>(gguf.texts("tokenizer.ggml.tokens").size());
}

void write_gguf_tokenizer(const GgufFile& gguf, const std::filesystem::path& folder,
                          GgufChatTemplate chat_template) {
  check_gguf_tokenizer(gguf);
  const bool sentencepiece = is_sentencepiece(gguf);
  const Vocabulary vocabulary(gguf);
  const Json special = special_tokens(gguf, vocabulary);
  const bool begin =
      gguf.boolean("tokenizer.ggml.add_bos_token", sentencepiece || pre_tokenizer_of(gguf).begins_with_bos);
  const bool end = gguf.boolean("tokenizer.ggml.add_eos_token", false);

  Json tokenizer = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  Json config = {{"add_prefix_space", false}, {"added_tokens_decoder", Json::object()}};
  tokenizer["added_tokens"] = Json::array();
  for (const auto& [id, token] : vocabulary.added()) {
    Json with_id = {{"id", id}};
    with_id.update(token);
    tokenizer["added_tokens"].push_back(with_id);
    config["added_tokens_decoder"][std::to_string(id)] = token;
  }
  tokenizer.update(sentencepiece ? sentencepiece_parts(gguf, vocabulary, special)
                                 : byte_level_parts(gguf, vocabulary));
  tokenizer["post_processor"] = post_processor(gguf, special, begin, end);
  Json& model = tokenizer["model"];
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  model["continuing_subword_prefix"] = nullptr;
  model["end_of_word_suffix"] = nullptr;
  model["vocab"] = vocabulary.entries();

  config["add_bos_token"] = begin;
  config["add_eos_token"] = end;
  config.update(special);
  if (chat_template == GgufChatTemplate::chatml)
    config["chat_template"] = kChatMl;
  else if (gguf.contains("tokenizer.chat_template"))
    config["chat_template"] = gguf.text("tokenizer.chat_template");
  config["clean_up_tokenization_spaces"] = false;
  config["model_max_length"] = gguf.integer(gguf.text("general.architecture") + ".context_length");
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  try {
    write_text_file(folder / "tokenizer.json", tokenizer.dump(1) + "\n");
    write_text_file(folder / "tokenizer_config.json", config.dump(2) + "\n");
    write_text_file(folder / "special_tokens_map.json", special.dump(2) + "\n");
  } catch (const nlohmann::json::type_error&) {
    gguf.refuse("key tokenizer.ggml.tokens or tokenizer.chat_template: is not UTF-8");
  }
}

}  // namespace efface
