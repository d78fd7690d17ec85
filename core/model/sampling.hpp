// How the token that comes next is chosen.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace efface {

struct Sampling {
  double temperature = 0;  ///< 0: greedy
  int64_t top_k = 0;       ///< only the k most probable tokens, and what ties with the last; 0: all
  uint64_t seed = 0;
};

/// One id a row, [m] int64, from softmax(logits / temperature) over the top_k most probable: the first id, in
/// ascending order, at which the cumulative probability exceeds the row's `uniform` in [0, 1). logits
/// [m, vocab], uniform [m]. In the order of ids, so that rounding in the logits moves a boundary by as much
/// and no more; in that of probabilities it could swap two tokens.
/// @pre temperature > 0
at::Tensor sample(const at::Tensor& logits, const at::Tensor& uniform, double temperature, int64_t top_k);

}  // namespace efface
