// What config.json says of a decoder. The model families differ in data only: each reads its config.json into
// these fields (core/model/families), and one transformer computes what they say.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/rope.hpp"

namespace efface {

/// Of the gate: x sigmoid(x), or x Phi(x), exactly or by tanh.
enum class Activation { silu, gelu, gelu_tanh };

/// What may differ between the layers of one model.
struct LayerKind {
  int64_t window = 0;   ///< a token sees itself and the window - 1 before it; 0: all before it
  int rope = 0;         ///< index into ModelConfig::ropes; -1: positions are not encoded
  int64_t experts = 0;  ///< of its mixture; 0: one dense feed-forward
};

/// How a family's files name and cut what other families' do otherwise.
struct TensorLayout {
  bool fused_qkv = false;       ///< one qkv_proj: rows of q, then k, then v
  bool fused_gate_up = false;   ///< one gate_up_proj: rows of gate, then up
  std::string mixture = "mlp";  ///< the block of a mixture: "<mixture>.gate", "<mixture>.experts.3.<...>"
  std::string expert_gate = "gate_proj", expert_up = "up_proj", expert_down = "down_proj";
};

struct ModelConfig {
  std::string model_type = "llama";
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;  ///< beyond which rows are refused; 0: not known, not checked
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = false;

  std::vector<RopeConfig> ropes = std::vector<RopeConfig>(1);
  std::vector<LayerKind> layer_kinds;  ///< [layers], or empty: all as LayerKind{} is
  double attention_scale = 0;          ///< scores are multiplied by it; 0: 1 / sqrt(head_dim)
  double attention_softcap = 0;        ///< scores s become cap tanh(s / cap); 0: they stay
  double logit_softcap = 0;            ///< logits alike
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;        ///< RMS norm of each head of q and of k, before RoPE
  bool output_norms = false;   ///< also what attention and feed-forward give is normalised, then added
  bool norms_add_one = false;  ///< norms multiply by 1 + weight
  double embedding_scale = 1;  ///< embeddings are multiplied by it, rounded to the weights' dtype
  Activation activation = Activation::silu;

  int64_t expert_size = 0;         ///< intermediate size of an expert
  int64_t experts_per_token = 0;   ///< the most probable ones
  bool normalise_experts = false;  ///< the chosen ones' probabilities are divided by their sum

  TensorLayout layout;
  std::vector<int64_t> eos_token_ids;
  std::string dtype = "float32";  ///< torch_dtype / dtype of the file
  nlohmann::json raw;             ///< written back unchanged on export

  LayerKind kind(int layer) const {
    return layer_kinds.empty() ? LayerKind{} : layer_kinds.at(static_cast<size_t>(layer));
  }
};

/// Throws Error(model) naming file and key for a missing, mistyped or impossible value, for a model_type that
/// is not known, and for a switch that is not handled: a model is never computed wrongly in silence.
ModelConfig read_model_config(const std::filesystem::path& folder);

/// Throws Error(usage) when the size does not divide heads and intermediate sizes, or neither divides the
/// key-value heads nor is a multiple of them, naming the sizes that would do. The vocabulary need not divide:
/// its rows are dealt out as evenly as possible (even_range).
void check_tensor_parallel(const ModelConfig& config, int tensor_size);

/// Throws Error(data) when `what` ("row 3") has more tokens than the model has positions: rotary embeddings
/// go on beyond them, but what comes out there the model was never trained to give.
void check_positions(const ModelConfig& config, const std::string& what, int64_t tokens);

}  // namespace efface
