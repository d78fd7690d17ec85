// The tensors of a decoder, this rank's part of each, and how they are filled.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "core/model/config.hpp"
#include "core/model/linear.hpp"
#include "core/model/transformer.hpp"
#include "core/model/vocab_parallel.hpp"
#include "distributed/mesh.hpp"

namespace efface {

struct DecoderLayer {
  at::Tensor input_norm, post_attention_norm;  ///< [hidden]
  FusedLinear qkv, o, gate_up, down;
  at::ScalarType dtype = at::kFloat;

  FusedLinear& linear(Projection projection);
};

struct DecoderWeights {
  VocabShard embedding;
  VocabShard head;  ///< the same storage as `embedding` where they are tied
  at::Tensor final_norm;
  std::vector<DecoderLayer> layers;
};

/// Uninitialised.
DecoderWeights allocate_weights(const ModelConfig& config, const Mesh& mesh, at::ScalarType dtype);

/// Every tensor of the model by its Hugging Face name, in canonical order.
std::vector<Weight> list_weights(const ModelConfig& config, DecoderWeights& weights);

/// Rows (or columns) of the global tensor that this rank holds; [0, rows) for a replicated one.
std::pair<int64_t, int64_t> shard_range(const Weight& weight, const Mesh& mesh);

/// Returns the file's tensor names in order. Throws Error(model) naming missing, extra and mis-shaped
/// tensors.
std::vector<std::string> load_weights(const std::filesystem::path& folder, const std::vector<Weight>& weights,
                                      const ModelConfig& config, const Mesh& mesh);

/// Philox by name: matrices N(0, 1 / in), norms 1.
void randomise_weights(const std::vector<Weight>& weights, const Mesh& mesh, uint64_t seed);

}  // namespace efface
