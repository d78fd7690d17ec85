// Embedding, head and what follows it, over the vocabulary shards of the tensor group. Rank r holds the rows
// even_range(vocab, r, t) of the embedding and of the head. Nowhere is [m, vocab] held whole: logits are
// formed for a chunk of rows at a time. Every function here is collective over the tensor group.
#pragma once

#include <ATen/ATen.h>

#include "distributed/communicator.hpp"

namespace efface {

struct VocabShard {
  at::Tensor weight;  ///< [end - begin, hidden], frozen
  int64_t begin = 0, end = 0;
  int64_t vocab = 0;
  double softcap = 0;  ///< logits l become softcap tanh(l / softcap); 0: they stay
  Communicator group;
};

/// ids [tokens] -> rows of the global embedding [tokens, hidden], the same on every rank. No gradient.
at::Tensor embed_tokens(const VocabShard& shard, const at::Tensor& ids);

/// hidden [m, hidden], ids [m] -> log softmax(hidden W^T)[i, ids[i]]: [m], fp32 (fp64 for fp64), replicated.
/// d hidden[i] = d out[i] (W[ids[i]] - p_i W), p scaled by the cap's slope, is formed with the forward pass,
/// so logits are formed once.
at::Tensor vocab_log_probabilities(const VocabShard& shard, const at::Tensor& hidden, const at::Tensor& ids);

/// KL(softmax(reference W^T) || softmax(hidden W^T)) per row: [m]. d hidden[i] = d out[i] (p_i - p_ref_i) W.
at::Tensor vocab_kl_to_reference(const VocabShard& shard, const at::Tensor& hidden,
                                 const at::Tensor& reference);

at::Tensor vocab_argmax(const VocabShard& shard,
                        const at::Tensor& hidden);  ///< [m] int64, ties to the lowest id
at::Tensor vocab_logits(const VocabShard& shard, const at::Tensor& hidden);  ///< [m, vocab], gathered

}  // namespace efface
