// What unlearning changed: dW of each trained module, as it is kept between stages and put into a model.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <utility>

#include "core/model/transformer.hpp"

namespace efface {

/// Global tensors, fp32, the same on every rank.
struct ModelUpdate {
  double lora_scale = 0;
  std::map<ModuleId, std::pair<at::Tensor, at::Tensor>> adapters;  ///< A~ = A P [r, in], B [out, r]
  std::map<ModuleId, at::Tensor> matrices;                         ///< dW [out, in]

  bool is_lora() const { return !adapters.empty(); }
  std::vector<ModuleId> modules() const;
  at::Tensor delta(const ModuleId& module) const;  ///< dW [out, in] fp32

  /// One safetensors file; written by the caller's rank alone.
  void write(const std::filesystem::path& file) const;
  static ModelUpdate read(const std::filesystem::path& file);
  /// W0 + dW in place, in the model's dtype, this rank's part.
  void merge_into(const Transformer& model) const;
};

/// Rows or columns of a global [out, in] that this tensor rank holds of the weight.
at::Tensor local_part(const at::Tensor& global, const Weight& weight);

}  // namespace efface
