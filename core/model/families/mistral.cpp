// Mistral and its offspring (Zephyr), and Mixtral, whose feed-forwards are mixtures of experts.
#include "core/model/families/family.hpp"

namespace efface {

void read_mistral(const ConfigFile& file, ModelConfig& config) {
  refuse_switches(file, {"attention_bias", "mlp_bias"});
  config.layer_kinds.assign(static_cast<size_t>(config.layers), {.window = read_window(file)});
}

void read_mixtral(const ConfigFile& file, ModelConfig& config) {
  read_mistral(file, config);
  for (LayerKind& kind : config.layer_kinds) kind.experts = file.size("num_local_experts");
  config.expert_size = config.intermediate_size;
  config.experts_per_token = file.size("num_experts_per_tok");
  config.normalise_experts = true;
  config.layout.mixture = "block_sparse_moe";
  config.layout.expert_gate = "w1";
  config.layout.expert_up = "w3";
  config.layout.expert_down = "w2";
}

}  // namespace efface
