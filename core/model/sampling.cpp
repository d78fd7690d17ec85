#include "core/model/sampling.hpp"

#include <algorithm>
#include <limits>
#include <tuple>

namespace efface {

at::Tensor sample(const at::Tensor& logits, const at::Tensor& uniform, double temperature, int64_t top_k) {
  at::Tensor scores = logits.to(at::kDouble);
  if (top_k > 0) {
    const at::Tensor best = std::get<0>(scores.topk(std::min(top_k, scores.size(1)), 1));
    scores = scores.masked_fill(scores < best.slice(1, -1), -std::numeric_limits<double>::infinity());
  }
  // Measured from the maximum first: a small temperature would take the scores out of range.
  const at::Tensor weights = ((scores - scores.amax(1, true)) / temperature).exp();
  const at::Tensor cumulative = weights.cumsum(1);
  const at::Tensor wanted = cumulative.slice(1, -1) * uniform.to(cumulative.options()).unsqueeze(1);
  return at::searchsorted(cumulative, wanted, /*out_int32=*/false, /*right=*/true).squeeze(1);
}

}  // namespace efface
