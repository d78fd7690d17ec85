// What a Transformer holds, shared by transformer.cpp and generate.cpp.
#pragma once

#include <functional>
#include <memory>
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
  /// What the layers share for a batch of whole rows. Every such pass asks for one, so it is here that a row
  /// longer than the model's positions is refused (check_positions).
  std::shared_ptr<const AttentionPlan> plan(const RaggedBatch& batch, at::ScalarType dtype) const;

  /// qkv [tokens, width] of a layer -> what its attention gives, [tokens, heads * head_dim].
  using Attention = std::function<at::Tensor(int layer, const at::Tensor& qkv)>;
  at::Tensor run_layer(int layer, const at::Tensor& hidden, const Attention& attention,
                       const Taps* taps) const;
};

}  // namespace efface
