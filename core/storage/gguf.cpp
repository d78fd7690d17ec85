#include "core/storage/gguf.hpp"

#include <charconv>
#include <unordered_map>

#include "core/storage/gguf_file.hpp"
#include "core/storage/llama_folder.hpp"
#include "core/storage/pending_folder.hpp"

namespace efface {
namespace {

/// 1e-05 rather than 9.999999747378752e-06: the shortest decimal that is the same fp32 number.
double shortest(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), static_cast<float>(value)).ptr;
  double result = value;
  std::from_chars(text, end, result);
  return result;
}

/// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"
std::string llama_cpp_name(const std::string& name) {
  static const std::unordered_map<std::string, std::string> kWhole = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"}};
  static const std::unordered_map<std::string, std::string> kInLayer = {
      {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  if (const auto found = kWhole.find(name); found != kWhole.end()) return found->second;
  const std::string prefix = "model.layers.", suffix = ".weight";
  const size_t dot = name.find('.', prefix.size());
  const std::string part = name.substr(dot + 1, name.size() - dot - 1 - suffix.size());
  return "blk." + name.substr(prefix.size(), dot - prefix.size()) + "." + kInLayer.at(part) + suffix;
}

int64_t positive(const GgufFile& gguf, const std::string& key, std::optional<int64_t> fallback = {}) {
  constexpr int64_t kLargest = int64_t{1} << 31;
  const int64_t value = gguf.integer(key, fallback);
  if (value < 1 || value >= kLargest) gguf.refuse("key " + key + " is " + std::to_string(value));
  return value;
}

LlamaFolder read_sizes(const GgufFile& gguf, at::ScalarType dtype) {
  const std::string architecture = gguf.text("general.architecture");
  if (architecture != "llama")
    gguf.refuse("has the architecture " + shown(architecture), "only llama is imported");
  LlamaFolder model;
  model.dtype = dtype;
  model.hidden_size = positive(gguf, "llama.embedding_length");
  model.intermediate_size = positive(gguf, "llama.feed_forward_length");
  model.layers = positive(gguf, "llama.block_count");
  model.heads = positive(gguf, "llama.attention.head_count");
  model.key_value_heads = positive(gguf, "llama.attention.head_count_kv", model.heads);
  model.head_size = positive(gguf, "llama.attention.key_length", model.hidden_size / model.heads);
  model.context = positive(gguf, "llama.context_length");
  model.rope_theta = shortest(gguf.number("llama.rope.freq_base", 10000));
  model.norm_epsilon = shortest(gguf.number("llama.attention.layer_norm_rms_epsilon"));
  model.vocab_size = check_gguf_tokenizer(gguf);
  model.tied = !gguf.has_tensor("output.weight");
  if (model.heads % model.key_value_heads != 0 || model.head_size % 2 != 0)
    gguf.refuse("its numbers of heads and their size do not fit together");
  if (gguf.integer("llama.rope.dimension_count", model.head_size) != model.head_size)
    gguf.refuse("rotates a part of each head only, which is not imported");
  if (gguf.contains("llama.rope.scaling.type") && gguf.text("llama.rope.scaling.type") != "none")
    gguf.refuse("scales its rotary frequencies, which is not imported");
  if (gguf.integer("llama.expert_count", 0) != 0)
    gguf.refuse("is a mixture of experts, which is not imported");
  if (gguf.integer("llama.attention.sliding_window", model.context) < model.context)
    gguf.refuse("attends within a sliding window, which is not imported");
  const auto id = [&](const std::string& role) -> std::optional<int64_t> {
    const std::string key = "tokenizer.ggml." + role + "_token_id";
    if (!gguf.contains(key)) return std::nullopt;
    return gguf.integer(key);
  };
  model.bos = id("bos");
  model.eos = id("eos");
  model.pad = id("padding");
  return model;
}

/// Exactly the tensors of a Llama of these sizes, each of its shape.
void check_tensors(const GgufFile& gguf, const LlamaFolder& model) {
  const auto names = gguf.tensor_names();
  // Before the list of wanted names is made: its length is what the file claims.
  if (static_cast<int64_t>(names.size()) < model.layers) gguf.refuse("has too few tensors for its layers");
  const auto wanted = llama_tensors(model);
  for (const auto& [name, shape] : wanted) {
    const std::string source = llama_cpp_name(name);
    if (gguf.tensor_shape(source) != shape)
      gguf.refuse("tensor " + shown(source) + " has an unexpected shape");
  }
  if (names.size() == wanted.size()) return;
  std::unordered_map<std::string, bool> known;
  for (const auto& [name, shape] : wanted) known[llama_cpp_name(name)] = true;
  for (const auto& name : names)
    if (!known.count(name))
      gguf.refuse("has the tensor " + shown(name) + ", which a plain Llama does not have");
}

}  // namespace

void import_gguf(const std::filesystem::path& gguf_path, const std::filesystem::path& output_folder,
                 const GgufImportOptions& options) {
  const GgufFile gguf(gguf_path);
  const LlamaFolder model = read_sizes(gguf, options.dtype);
  check_tensors(gguf, model);
  PendingFolder folder(output_folder);
  write_gguf_tokenizer(gguf, folder.temporary(), options.chat_template);
  write_llama_folder(folder.temporary(), model, [&](const std::string& name) {
    const at::Tensor weight = gguf.read(llama_cpp_name(name));
    if (name.find(".q_proj.") != std::string::npos) return halves_from_pairs(weight, model.heads);
    if (name.find(".k_proj.") != std::string::npos) return halves_from_pairs(weight, model.key_value_heads);
    return weight;
  });
  folder.publish();
}

}  // namespace efface
