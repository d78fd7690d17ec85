// The passes between matrix products. Statistics, tables and sums are fp32 whatever the dtype (fp64 in fp64).
#pragma once

#include <ATen/ATen.h>

namespace efface {

/// fp32 for fp32 and bf16, fp64 for fp64.
inline at::ScalarType accumulation_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// x [tokens, hidden], weight [hidden] (frozen) -> x / sqrt(mean(x^2) + eps) * weight, in x's dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// gate_up [tokens, 2 n], gate first -> silu(gate) * up, [tokens, n]. Only gate_up is kept for the backward.
at::Tensor swiglu(const at::Tensor& gate_up);

/// Angles of RoPE at each token: cos and sin [tokens, head_dim / 2].
struct RotaryTable {
  at::Tensor cos, sin;
};
RotaryTable make_rotary_table(const at::Tensor& positions, int64_t head_dim, double theta,
                              at::ScalarType dtype);

/// Rotates the first `heads` heads of each row of x [tokens, >= heads * head_dim] in place, in the half-split
/// layout of Hugging Face: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin); `inverse` turns back. No autograd.
void rotate_(at::Tensor& x, int64_t heads, const RotaryTable& table, bool inverse);

}  // namespace efface
