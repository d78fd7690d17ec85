// Causal self-attention on ragged rows: exact for each row by itself, computed for rows of like length
// together.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "core/model/elementwise.hpp"
#include "core/text/ragged_batch.hpp"

namespace efface {

/// One layer's attention on this rank: its heads inside a fused [tokens, (heads + 2 kv_heads) * head_dim], q
/// first, then k, then v; and what config.hpp says of scores, window and RoPE.
struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double scale = 0;  ///< 0: 1 / sqrt(head_dim)
  double softcap = 0;
  int64_t window = 0;
  int rope = 0;

  int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }
  double score_scale() const { return scale > 0 ? scale : 1 / std::sqrt(static_cast<double>(head_dim)); }
  /// Whether a causal row of `length` tokens needs its mask written out.
  bool needs_mask(int64_t length) const { return softcap > 0 || (window > 0 && window < length); }
};

/// Rows that go into one call, padded at the end to `length`; under a causal mask padding is never seen.
struct RowGroup {
  int64_t rows = 0;
  int64_t length = 0;
  int64_t first_token = 0;  ///< where the group's tokens lie, if `gather` is undefined: contiguous, unpadded
  at::Tensor gather;  ///< [rows * length] token at each padded place (its row's last one in the padding)
  at::Tensor tokens;  ///< [tokens of the group]: these tokens ...
  at::Tensor places;  ///< [tokens of the group]: ... lie at these padded places
  /// By window, where a layer needs it: [length, length] in the dtype of scores, 0 where a token sees
  /// another and -inf elsewhere.
  std::map<int64_t, at::Tensor> masks;
};

/// What all layers share for one batch.
struct AttentionPlan {
  std::vector<RotaryTable> rotary;  ///< one for each of the model's ropes
  std::vector<RowGroup> groups;
};
/// `layers`: the shapes that will attend by this plan.
std::shared_ptr<const AttentionPlan> plan_attention(const RaggedBatch& batch,
                                                    const std::vector<RopeConfig>& ropes,
                                                    const std::vector<AttentionShape>& layers,
                                                    at::ScalarType dtype);

/// RMS norm of each head of q and of each of k in qkv [tokens, width], by weights [head_dim].
at::Tensor normalise_heads(const at::Tensor& qkv, const AttentionShape& shape, const at::Tensor& q_weight,
                           const at::Tensor& k_weight, double eps);
/// RoPE in place on q and k, by the layer's table of `tables`. No autograd.
void rotate_queries_keys_(at::Tensor& qkv, const AttentionShape& shape,
                          const std::vector<RotaryTable>& tables, bool adjoint = false);

/// RoPE and attention: qkv [tokens, width] -> [tokens, heads * head_dim]. `qkv` is consumed: on the CPU q and
/// k are rotated in place.
at::Tensor attend(const at::Tensor& qkv, const AttentionShape& shape,
                  std::shared_ptr<const AttentionPlan> plan);

/// The same out of ATen's differentiable operations: what runs on CUDA and where scores are capped, and what
/// tests compare attend() with.
at::Tensor attend_composed(const at::Tensor& qkv, const AttentionShape& shape,
                           std::shared_ptr<const AttentionPlan> plan);

/// Attention alone, without autograd, of an already rotated qkv.
at::Tensor attend_rotated(const at::Tensor& rotated_qkv, const AttentionShape& shape,
                          const AttentionPlan& plan);

/// Keys and values of one layer of every sequence being generated: [rows, kv_heads, capacity, head_dim]; on
/// the CPU in the dtype that attention is computed in there, fp32 for a bf16 layer.
struct KeyValueCache {
  at::Tensor keys, values;
};
KeyValueCache make_cache(const AttentionShape& shape, int64_t rows, int64_t capacity, at::ScalarType dtype,
                         at::Device device);

/// Writes k and v of the rotated `qkv` [tokens, width] at (rows[i], positions[i]).
void store_keys_values(KeyValueCache& cache, const at::Tensor& rotated_qkv, const AttentionShape& shape,
                       const at::Tensor& rows, const at::Tensor& positions);

/// One new token a sequence, already rotated and stored: qkv [rows, width] attends to its cache's places up
/// to its own, `positions` [rows], as far back as the window goes -> [rows, heads * head_dim].
at::Tensor attend_to_cache(const at::Tensor& rotated_qkv, const AttentionShape& shape,
                           const KeyValueCache& cache, const at::Tensor& positions);

}  // namespace efface
