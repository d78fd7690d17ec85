// Llama 1 to 3.3, and what is Llama but for the name: TinyLlama, Yi, SmolLM 1 and 2. SmolLM3 leaves the
// positions of every fourth layer unencoded.
#include "core/model/families/family.hpp"

namespace efface {

void read_llama(const ConfigFile& file, ModelConfig& config) {
  read_attention_bias(file, config);
  config.mlp_bias = file.flag("mlp_bias", false);
}

void read_smollm3(const ConfigFile& file, ModelConfig& config) {
  constexpr int64_t kEveryFourth = 4;
  read_llama(file, config);
  const int64_t interval = file.size("no_rope_layer_interval", kEveryFourth);
  const std::vector<int64_t> encoded = file.integers("no_rope_layers");  // 1 where there is RoPE
  if (!encoded.empty() && static_cast<int64_t>(encoded.size()) != config.layers)
    file.fail("no_rope_layers", "does not have a number for each layer");
  const auto has_rope = [&](int64_t layer) {
    return encoded.empty() ? (layer + 1) % interval != 0 : encoded[layer] != 0;
  };
  const int64_t window = file.flag("use_sliding_window", false) ? read_window(file) : 0;
  config.layer_kinds =
      read_layer_types(file, config.layers, window, [&](int64_t layer) { return !has_rope(layer); });
  for (int64_t layer = 0; layer < config.layers; ++layer)
    if (!has_rope(layer)) config.layer_kinds[layer].rope = -1;
}

}  // namespace efface
