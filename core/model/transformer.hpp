// A decoder of any of the families (core/model/families), sharded over the tensor group, on ragged batches.
// Linear layers see [tokens, features] without padding; only attention sees sequences; logits are formed only
// where they are asked for.
//
// Over t tensor ranks: q, k, v, gate, up are column-parallel (rows of the weight sharded), o and down are
// row-parallel (columns sharded), each expert of a mixture like a dense feed-forward; embedding and head are
// vocab-parallel; norms and routers are replicated. Where there are fewer key-value heads than tensor ranks,
// neighbouring ranks hold the same head of k and v, as in Megatron-LM (Shoeybi et al. 2019). Hidden states
// are replicated on the tensor group and differ between data ranks. Everything is differentiable by autograd
// with respect to adapters and to weights made trainable; frozen weights get no gradient.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/model/config.hpp"
#include "core/model/module.hpp"
#include "core/model/sampling.hpp"
#include "core/text/ragged_batch.hpp"
#include "distributed/mesh.hpp"

namespace efface {

enum class Sharding { replicated, rows, columns };

/// One tensor of the Hugging Face folder and this rank's part of it. `local` is a view into the storage the
/// forward pass reads (q, k, v share one matrix, gate and up another): writing into it changes the model. It
/// need not be contiguous.
struct Weight {
  std::string name;                   ///< "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> global_shape;  ///< [out, in]
  Sharding sharding = Sharding::replicated;
  at::Tensor local;
  int64_t begin = 0;    ///< `local` is rows (or columns) [begin, begin + its size) of the global tensor
  bool primary = true;  ///< false on all but one of several tensor ranks that hold the same part
  std::string stored_name = {};  ///< its tensor of the file, where families name or fuse otherwise
  int64_t stored_row = 0;        ///< its first row there

  int dim() const { return sharding == Sharding::columns ? 1 : 0; }  ///< that is sharded
};

/// y += scale * (x A^T) B^T on one module. `a` is what is multiplied, so A P where there is a projection.
/// Over a tensor group the gradients of replicated factors (A of q, k, v, gate, up; B of o, down) are
/// partial: each rank gets its shard's share, and their sum over the group is the gradient. Those of sharded
/// factors are whole.
struct LoraAdapter {
  at::Tensor a;  ///< column-parallel [r, in] replicated; row-parallel [r, in / t] (columns of the global A)
  at::Tensor b;  ///< column-parallel [out / t, r] (rows of the global B); row-parallel [out, r] replicated
  double scale = 1;
};

/// Functions that see, or replace, what flows past. Null ones cost nothing.
struct Taps {
  /// Each linear input once, [tokens, in] or [tokens, in / t] for o and down, under no_grad or not as the
  /// caller.
  std::function<void(const InputId&, const at::Tensor&)> on_input;
  /// Each input of an expert once, rows of those tokens alone that are routed to it: [routed, in], [routed,
  /// in / t] for down; `tokens` [routed], ascending, are their places in the batch. Also without any.
  std::function<void(const InputId&, const at::Tensor& x, const at::Tensor& tokens)> on_expert_input;
  /// Input embeddings [tokens, hidden], scaled where the family does -> replacement.
  std::function<at::Tensor(const at::Tensor&)> replace_embedding;
  /// Output of a layer's feed-forward (after the tensor reduction, before the residual) -> replacement.
  std::function<at::Tensor(int layer, const at::Tensor&)> replace_mlp_output;
};

struct TransformerOptions {
  at::ScalarType dtype = at::kFloat;  ///< kFloat, kBFloat16 or kDouble; tensors of the file are converted
};

class Transformer {
 public:
  /// Each rank reads only its slices of the safetensors in `folder` (memory-mapped).
  static Transformer load(const std::filesystem::path& folder, const Mesh& mesh,
                          TransformerOptions options = {});
  /// Seeded random weights (Philox by name: the same global model on every mesh), for tests.
  static Transformer random(const ModelConfig& config, const Mesh& mesh, uint64_t seed,
                            TransformerOptions options = {});

  const ModelConfig& config() const;
  const Mesh& mesh() const;
  at::ScalarType dtype() const;

  // --- forward -------------------------------------------------------------------------------------------
  /// [tokens, hidden] in the dtype of layer 0.
  at::Tensor embed(const RaggedBatch& batch, const Taps* taps = nullptr) const;
  /// Layers [begin, end) on hidden states [tokens, hidden]; end = -1: all. The result has the dtype of the
  /// last. Throws Error(data) for a row longer than the model's positions.
  at::Tensor run_layers(at::Tensor hidden, const RaggedBatch& batch, int begin = 0, int end = -1,
                        const Taps* taps = nullptr) const;
  /// embed + run_layers + final norm: [tokens, hidden].
  at::Tensor forward(const RaggedBatch& batch, const Taps* taps = nullptr) const;
  at::Tensor final_norm(const at::Tensor& hidden) const;

  // Below, `hidden` is normalised, one row a position wanted: [m, hidden]. Results are replicated on the
  // tensor group; fp32 (fp64 for an fp64 model) whatever the model's dtype. The [m, vocab] matrix is sharded
  // over vocab and processed in chunks of rows, in the backward pass too (recomputed there, never kept).
  /// log p(ids[i] | hidden[i]): [m], differentiable.
  at::Tensor token_log_probabilities(const at::Tensor& hidden, const at::Tensor& ids) const;
  /// KL(reference || model) per position, the reference given by its own normalised hidden states [m, hidden]
  /// through the same head: [m], differentiable with respect to `hidden` only.
  at::Tensor kl_to_reference(const at::Tensor& hidden, const at::Tensor& reference_hidden) const;
  at::Tensor argmax(const at::Tensor& hidden) const;  ///< [m] int64, ties to the lowest id
  at::Tensor logits(const at::Tensor& hidden) const;  ///< [m, vocab], gathered; small m only

  /// forward, then token_log_probabilities at the batch's labels: [labels].
  at::Tensor label_log_probabilities(const RaggedBatch& batch) const;

  // --- generation ------------------------------------------------------------------------------------------
  /// With a key-value cache; prompts of different lengths together. Stops at any eos id (not included) or
  /// after max_new_tokens. Same answer on every tensor rank; a sampled one depends on the seed, the prompt's
  /// place among the prompts, and the logits. Throws Error(data) for a prompt that leaves no positions for
  /// max_new_tokens.
  std::vector<std::vector<int64_t>> generate(const std::vector<std::vector<int64_t>>& prompts,
                                             int64_t max_new_tokens, const Sampling& sampling = {}) const;

  // --- weights ---------------------------------------------------------------------------------------------
  std::vector<Weight> weights() const;           ///< in the file's order
  Weight weight(const std::string& name) const;  ///< throws Error(model) with the nearest right name
  Weight weight(const ModuleId& module) const;
  /// Gives the module a weight of its own (fp32 or wider leaf) that requires a gradient; the master copy from
  /// now on. Returns the leaf, contiguous [out, in] of this rank; its gradient is whole, not a partial sum.
  at::Tensor make_trainable(const ModuleId& module);
  /// Layers [begin, end) are computed in `dtype` from now on (KUDA's window in fp32); hidden states are cast
  /// at the borders. Views from weights() taken before are no longer the model's.
  void set_layer_dtype(int begin, int end, at::ScalarType dtype);

  // --- adapters --------------------------------------------------------------------------------------------
  void set_adapter(const ModuleId& module, LoraAdapter adapter);
  void clear_adapters();
  /// While false, adapters stay but are not applied: the frozen reference model.
  void enable_adapters(bool enabled);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace efface
