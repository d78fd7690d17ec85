#include "core/model/config.hpp"

#include <algorithm>
#include <string>

#include "core/model/families/family.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr Family kFamilies[] = {{"llama", false, read_llama},     {"smollm3", true, read_smollm3},
                                {"mistral", false, read_mistral}, {"mixtral", false, read_mixtral},
                                {"qwen2", false, read_qwen2},     {"qwen3", false, read_qwen3},
                                {"phi3", false, read_phi3},       {"qwen3_moe", false, read_qwen3_moe},
                                {"gemma2", true, read_gemma2},    {"gemma3_text", true, read_gemma3}};

const Family& family_of(const ConfigFile& file) {
  const std::string type = file.text("model_type", "");
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.model_type == type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  file.fail("model_type", "is \"" + type + "\", not one that is known", "use a model of one of " + known);
}

/// Switches that no family of ours has.
void refuse_unknown_switches(const ConfigFile& file) {
  refuse_switches(file, {"qkv_bias", "use_qk_norm"});
  if (file.size("pretraining_tp", 1) != 1) file.fail("pretraining_tp", "other than 1 is not supported");
  if (file.has("quantization_config"))
    file.fail("quantization_config", "is not supported", "convert the model to float32 or bfloat16 first");
}

void read_sizes(const ConfigFile& file, ModelConfig& config) {
  config.hidden_size = file.size("hidden_size");
  config.intermediate_size = file.size("intermediate_size");
  config.layers = file.size("num_hidden_layers");
  config.heads = file.size("num_attention_heads");
  config.kv_heads = file.size("num_key_value_heads", config.heads);
  if (!file.has("head_dim") && config.hidden_size % config.heads != 0)
    file.fail("num_attention_heads", "does not divide hidden_size");
  config.head_dim = file.size("head_dim", config.hidden_size / config.heads);
  config.vocab_size = file.size("vocab_size");
  config.max_positions = file.size("max_position_embeddings", 2048);
  if (config.heads % config.kv_heads != 0)
    file.fail("num_key_value_heads", "does not divide num_attention_heads");
}

/// Positions up to which the stretched frequencies were made for, where that is beyond
/// max_position_embeddings.
int64_t stretched_positions(const RopeConfig& rope) {
  if (rope.scaling == RopeScaling::none || rope.scaling == RopeScaling::llama3) return 0;
  return static_cast<int64_t>(rope.factor * static_cast<double>(rope.original_positions));
}

void check_experts(const ConfigFile& file, const ModelConfig& config) {
  for (const LayerKind& kind : config.layer_kinds)
    if (kind.experts > 0 && config.experts_per_token > kind.experts)
      file.fail("num_experts_per_tok", "is more than there are experts");
}

bool fits(const ModelConfig& config, int64_t tensor_size) {
  const auto divides = [&](int64_t n) { return n % tensor_size == 0; };
  return divides(config.heads) && divides(config.intermediate_size) && divides(config.expert_size) &&
         (divides(config.kv_heads) || tensor_size % config.kv_heads == 0);
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const ConfigFile file(folder);
  const Family& family = family_of(file);
  refuse_unknown_switches(file);
  ModelConfig config;
  config.model_type = family.model_type;
  read_sizes(file, config);
  config.rms_norm_eps = file.positive("rms_norm_eps", 1e-6);
  config.ropes = {read_rope(file, config.head_dim)};
  config.max_positions = std::max(config.max_positions, stretched_positions(config.ropes.front()));
  config.activation = read_activation(file, "hidden_act", Activation::silu);
  config.tie_word_embeddings = file.flag("tie_word_embeddings", family.tied);
  config.eos_token_ids = file.integers("eos_token_id");
  config.dtype = file.text("torch_dtype", file.text("dtype", "float32"));
  config.raw = file.json();
  family.read(file, config);
  check_experts(file, config);
  return config;
}

void check_tensor_parallel(const ModelConfig& config, int tensor_size) {
  if (tensor_size >= 1 && fits(config, tensor_size)) return;
  std::string sizes;
  for (int64_t size = 1; size <= config.heads; ++size)
    if (fits(config, size)) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  const std::string experts =
      config.expert_size > 0 ? ", expert size " + std::to_string(config.expert_size) : "";
  throw Error(ErrorClass::usage,
              "tensor parallel size " + std::to_string(tensor_size) + " does not divide the model's " +
                  std::to_string(config.heads) + " heads, " + std::to_string(config.kv_heads) +
                  " key-value heads (or is a multiple of them)" + experts + " and intermediate size " +
                  std::to_string(config.intermediate_size),
              "use one of " + sizes);
}

void check_positions(const ModelConfig& config, const std::string& what, int64_t tokens) {
  if (config.max_positions <= 0 || tokens <= config.max_positions) return;
  throw Error(ErrorClass::data,
              what + ": " + std::to_string(tokens) + " tokens, more than the model's " +
                  std::to_string(config.max_positions) + " positions (max_position_embeddings)",
              "shorten the text, its window or the answer asked for, or take a model with more positions");
}

}  // namespace efface
