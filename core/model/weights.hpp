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

struct FeedForward {
  FusedLinear gate_up, down;
};

struct DecoderLayer {
  at::Tensor attention_norm, feed_forward_norm;                ///< [hidden], before each
  at::Tensor attention_output_norm, feed_forward_output_norm;  ///< [hidden], or undefined
  at::Tensor q_norm, k_norm;                                   ///< [head_dim], or undefined
  FusedLinear qkv, o;
  FeedForward feed_forward;          ///< dense, or ...
  std::vector<FeedForward> experts;  ///< ... a mixture
  at::Tensor router;                 ///< [experts, hidden]
  at::ScalarType dtype = at::kFloat;

  FusedLinear& linear(const ModuleId& module);
  std::vector<FusedLinear*> linears();
  std::vector<at::Tensor*> replicated();  ///< norms and router, those there are
};

struct DecoderWeights {
  VocabShard embedding;
  VocabShard head;  ///< the same storage as `embedding` where they are tied
  at::Tensor final_norm;
  std::vector<DecoderLayer> layers;
};

/// Uninitialised.
DecoderWeights allocate_weights(const ModelConfig& config, const Mesh& mesh, at::ScalarType dtype);

/// Every tensor of the model, in canonical order; what a file fuses is listed by its parts.
std::vector<Weight> list_weights(const ModelConfig& config, const Mesh& mesh, DecoderWeights& weights);

/// Returns the file's tensor names in order. Throws Error(model) naming missing, extra and mis-shaped
/// tensors.
std::vector<std::string> load_weights(const std::filesystem::path& folder, const std::vector<Weight>& weights,
                                      const ModelConfig& config);

/// Philox by name: matrices N(0, 1 / in), norms multiply by 1, biases N(0, 0.01).
void randomise_weights(const std::vector<Weight>& weights, const ModelConfig& config, uint64_t seed);

}  // namespace efface
