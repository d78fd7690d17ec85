// What a Transformer holds, shared by transformer.cpp, feed_forward.cpp and generate.cpp.
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

  std::vector<AttentionShape> attention;  ///< [layers]

  State(const ModelConfig& config, const Mesh& mesh, at::ScalarType dtype);
  /// [tokens, hidden], scaled where the family does, in the embedding's dtype.
  at::Tensor embed(const at::Tensor& ids) const;
  /// RMS norm, and what it multiplies by: `weight`, or 1 + it.
  at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) const;
  at::Tensor norm_scale(const at::Tensor& weight) const;
  /// What the layers share for a batch of whole rows. Every such pass asks for one, so it is here that a row
  /// longer than the model's positions is refused (check_positions).
  std::shared_ptr<const AttentionPlan> plan(const RaggedBatch& batch, at::ScalarType dtype) const;

  /// qkv [tokens, width] of a layer -> what its attention gives, [tokens, heads * head_dim].
  using Attend = std::function<at::Tensor(int layer, const at::Tensor& qkv)>;
  at::Tensor run_layer(int layer, const at::Tensor& hidden, const Attend& attend, const Taps* taps) const;

  // Below: z [tokens, hidden] -> partial sums over the tensor group [tokens, hidden]. (feed_forward.cpp)

  /// gate, up and down of one block; `see` is shown what each linear reads.
  using See = std::function<void(Input, const at::Tensor&)>;
  at::Tensor feed_forward(const FeedForward& block, const at::Tensor& z, const See& see) const;
  /// Each token goes through its most probable experts; the sum is weighted by their probabilities. Every
  /// tensor rank decides alike, as z is the same there.
  at::Tensor mixture(int layer, const at::Tensor& z, const Taps* taps) const;
};

}  // namespace efface
