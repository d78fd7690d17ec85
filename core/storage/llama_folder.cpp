#include "core/storage/llama_folder.hpp"

#include <nlohmann/json.hpp>

#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

const char* torch_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      throw Error(ErrorClass::usage,
                  std::string("a model is stored in fp32, bf16 or fp16, not in ") + c10::toString(dtype));
  }
}

nlohmann::ordered_json or_null(const std::optional<int64_t>& id) {
  return id ? nlohmann::ordered_json(*id) : nlohmann::ordered_json(nullptr);
}

}  // namespace

std::vector<std::pair<std::string, std::vector<int64_t>>> llama_tensors(const LlamaFolder& model) {
  const int64_t hidden = model.hidden_size, inner = model.intermediate_size;
  const int64_t queries = model.heads * model.head_size, keys = model.key_value_heads * model.head_size;
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
  tensors.push_back({"model.embed_tokens.weight", {model.vocab_size, hidden}});
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    tensors.push_back({prefix + "input_layernorm.weight", {hidden}});
    tensors.push_back({prefix + "self_attn.q_proj.weight", {queries, hidden}});
    tensors.push_back({prefix + "self_attn.k_proj.weight", {keys, hidden}});
    tensors.push_back({prefix + "self_attn.v_proj.weight", {keys, hidden}});
    tensors.push_back({prefix + "self_attn.o_proj.weight", {hidden, queries}});
    tensors.push_back({prefix + "post_attention_layernorm.weight", {hidden}});
    tensors.push_back({prefix + "mlp.gate_proj.weight", {inner, hidden}});
    tensors.push_back({prefix + "mlp.up_proj.weight", {inner, hidden}});
    tensors.push_back({prefix + "mlp.down_proj.weight", {hidden, inner}});
  }
  tensors.push_back({"model.norm.weight", {hidden}});
  if (!model.tied) tensors.push_back({"lm_head.weight", {model.vocab_size, hidden}});
  return tensors;
}

void write_llama_folder(const std::filesystem::path& folder, const LlamaFolder& model,
                        const std::function<at::Tensor(const std::string&)>& weight) {
  const nlohmann::ordered_json config = {{"architectures", {"LlamaForCausalLM"}},
                                         {"attention_bias", false},
                                         {"attention_dropout", 0.0},
                                         {"bos_token_id", or_null(model.bos)},
                                         {"eos_token_id", or_null(model.eos)},
                                         {"head_dim", model.head_size},
                                         {"hidden_act", "silu"},
                                         {"hidden_size", model.hidden_size},
                                         {"initializer_range", 0.02},
                                         {"intermediate_size", model.intermediate_size},
                                         {"max_position_embeddings", model.context},
                                         {"mlp_bias", false},
                                         {"model_type", "llama"},
                                         {"num_attention_heads", model.heads},
                                         {"num_hidden_layers", model.layers},
                                         {"num_key_value_heads", model.key_value_heads},
                                         {"pad_token_id", or_null(model.pad)},
                                         {"pretraining_tp", 1},
                                         {"rms_norm_eps", model.norm_epsilon},
                                         {"rope_scaling", nullptr},
                                         {"rope_theta", model.rope_theta},
                                         {"tie_word_embeddings", model.tied},
                                         {"torch_dtype", torch_name(model.dtype)},
                                         {"use_cache", true},
                                         {"vocab_size", model.vocab_size}};
  write_text_file(folder / "config.json", config.dump(2) + "\n");
  const nlohmann::ordered_json generation = {{"_from_model_config", true},
                                             {"bos_token_id", or_null(model.bos)},
                                             {"eos_token_id", or_null(model.eos)},
                                             {"pad_token_id", or_null(model.pad)}};
  write_text_file(folder / "generation_config.json", generation.dump(2) + "\n");

  std::vector<SafetensorsWriter::Declaration> declarations;
  for (auto& [name, shape] : llama_tensors(model)) declarations.push_back({name, model.dtype, shape});
  SafetensorsWriter writer(folder / "model.safetensors", declarations);
  for (const auto& declaration : declarations) writer.append(weight(declaration.name).to(model.dtype));
  writer.close();
}

at::Tensor halves_from_pairs(const at::Tensor& weight, int64_t heads) {
  const int64_t rows = weight.size(0), columns = weight.size(1);
  return weight.view({heads, rows / heads / 2, 2, columns}).transpose(1, 2).reshape({rows, columns});
}

}  // namespace efface
