// Qwen 2 and 2.5 (q, k and v with biases), Qwen 3 (q and k normalised), Qwen 3 with mixtures of experts.
#include "core/model/families/family.hpp"

namespace efface {
namespace {

/// The window slides in layers from max_window_layers on, if it is used at all.
void read_sliding_layers(const ConfigFile& file, ModelConfig& config) {
  const int64_t window = file.flag("use_sliding_window", false) ? read_window(file) : 0;
  const std::vector<int64_t> first = file.integers("max_window_layers");
  if (window > 0 && first.size() != 1) file.fail("max_window_layers", "is missing");
  config.layer_kinds = read_layer_types(file, config.layers, window,
                                        [&](int64_t layer) { return window > 0 && layer >= first.front(); });
}

}  // namespace

void read_qwen2(const ConfigFile& file, ModelConfig& config) {
  refuse_switches(file, {"attention_bias", "mlp_bias"});
  config.qkv_bias = true;
  read_sliding_layers(file, config);
}

void read_qwen3(const ConfigFile& file, ModelConfig& config) {
  refuse_switches(file, {"mlp_bias"});
  read_attention_bias(file, config);
  config.qk_norm = true;
  read_sliding_layers(file, config);
}

void read_qwen3_moe(const ConfigFile& file, ModelConfig& config) {
  refuse_switches(file, {"mlp_bias"});
  read_attention_bias(file, config);
  config.qk_norm = true;
  const int64_t window = file.flag("use_sliding_window", false) ? read_window(file) : 0;
  config.layer_kinds.assign(static_cast<size_t>(config.layers), {.window = window});
  const int64_t step = file.size("decoder_sparse_step", 1), experts = file.size("num_experts");
  for (int64_t layer = step - 1; layer < config.layers; layer += step)
    config.layer_kinds[layer].experts = experts;
  for (const int64_t layer : file.integers("mlp_only_layers")) {
    if (layer < 0 || layer >= config.layers) file.fail("mlp_only_layers", "names a layer that is not there");
    config.layer_kinds[layer].experts = 0;
  }
  config.expert_size = file.size("moe_intermediate_size");
  config.experts_per_token = file.size("num_experts_per_tok");
  config.normalise_experts = file.flag("norm_topk_prob", false);
}

}  // namespace efface
