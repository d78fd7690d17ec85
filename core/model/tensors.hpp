// Sizes of the linear layers, and where a family's files hold them.
#pragma once

#include <cstdint>
#include <string>

#include "core/model/config.hpp"
#include "core/model/module.hpp"

namespace efface {

/// Features of an input, and of what a module gives, before they are sharded.
int64_t input_width(const InputId& input, const ModelConfig& config);
int64_t output_width(const ModelConfig& config, const ModuleId& module);

/// Whether one tensor of the file holds this projection and the others that read its input.
bool is_fused(const TensorLayout& layout, Projection projection);

/// A module's weight is rows [row, row + output_width) of this tensor of the file.
struct StoredTensor {
  std::string name;  ///< "model.layers.0.self_attn.qkv_proj.weight"
  int64_t row = 0;
};
StoredTensor stored_weight(const ModelConfig& config, const ModuleId& module);

}  // namespace efface
