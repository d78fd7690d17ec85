// What a Transformer holds, shared by transformer.cpp and generate.cpp.
#pragma once

#include <functional>
#include <vector>

#include "core/model/attention.hpp"
#include "core/model/transformer.hpp"
#include "core/model/weights.hpp"

namespace efface {

struct Transformer::State {
  ModelConfig config;
  Mesh mesh;
  at::ScalarType dtype = at::kFloat;
  DecoderWeights weights;
  std::vector<std::string> name_order;  ///< of the file; empty: canonical
  bool adapters_enabled = true;

  AttentionShape attention_shape() const;

  /// qkv [tokens, width] of a layer -> what its attention gives, [tokens, heads * head_dim].
  using Attention = std::function<at::Tensor(int layer, const at::Tensor& qkv)>;
  at::Tensor run_layer(int layer, const at::Tensor& hidden, const Attention& attention,
                       const Taps* taps) const;
};

}  // namespace efface
