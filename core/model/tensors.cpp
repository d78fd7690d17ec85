#include "core/model/tensors.hpp"

namespace efface {
namespace {

/// What a family's files call a module.
std::string stored_module_name(const TensorLayout& layout, const ModuleId& module) {
  const std::string layer = "model.layers." + std::to_string(module.layer) + ".";
  const Input input = input_of(module.projection);
  if (layout.fused_qkv && input == Input::qkv) return layer + "self_attn.qkv_proj";
  if (layout.fused_gate_up && input == Input::gate_up) return layer + "mlp.gate_up_proj";
  if (module.expert == kDense) return module_name(module);
  const std::string& projection = module.projection == Projection::gate ? layout.expert_gate
                                  : module.projection == Projection::up ? layout.expert_up
                                                                        : layout.expert_down;
  return layer + layout.mixture + ".experts." + std::to_string(module.expert) + "." + projection;
}

}  // namespace

bool is_fused(const TensorLayout& layout, Projection projection) {
  const Input input = input_of(projection);
  return (layout.fused_qkv && input == Input::qkv) || (layout.fused_gate_up && input == Input::gate_up);
}

int64_t input_width(const InputId& input, const ModelConfig& config) {
  switch (input.input) {
    case Input::o:
      return config.heads * config.head_dim;
    case Input::down:
      return input.expert == kDense ? config.intermediate_size : config.expert_size;
    default:
      return config.hidden_size;
  }
}

int64_t output_width(const ModelConfig& config, const ModuleId& module) {
  switch (module.projection) {
    case Projection::q:
      return config.heads * config.head_dim;
    case Projection::k:
    case Projection::v:
      return config.kv_heads * config.head_dim;
    case Projection::gate:
    case Projection::up:
      return module.expert == kDense ? config.intermediate_size : config.expert_size;
    default:
      return config.hidden_size;
  }
}

StoredTensor stored_weight(const ModelConfig& config, const ModuleId& module) {
  StoredTensor stored{stored_module_name(config.layout, module) + ".weight", 0};
  if (!is_fused(config.layout, module.projection)) return stored;
  for (const Projection before : kProjections) {
    if (before == module.projection) break;
    if (input_of(before) == input_of(module.projection))
      stored.row += output_width(config, {module.layer, before, module.expert});
  }
  return stored;
}

}  // namespace efface
