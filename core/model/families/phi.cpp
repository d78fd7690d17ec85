// Phi-3, 3.5 and 4: fused qkv_proj and gate_up_proj, a window in all layers.
#include "core/model/families/family.hpp"

namespace efface {

void read_phi3(const ConfigFile& file, ModelConfig& config) {
  refuse_switches(file, {"attention_bias", "mlp_bias"});
  config.layer_kinds.assign(static_cast<size_t>(config.layers), {.window = read_window(file)});
  config.layout.fused_qkv = config.layout.fused_gate_up = true;
}

}  // namespace efface
