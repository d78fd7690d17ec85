// The passes between matrix products. Statistics, tables and sums are fp32 whatever the dtype (fp64 in fp64).
#pragma once

#include <ATen/ATen.h>

#include "core/model/config.hpp"
#include "core/model/rope.hpp"

namespace efface {

/// fp32 for fp32 and bf16, fp64 for fp64.
inline at::ScalarType accumulation_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// x [tokens, hidden], weight [hidden] (frozen, any dtype) -> x / sqrt(mean(x^2) + eps) * weight, in x's
/// dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// gate_up [tokens, 2 n], gate first -> activation(gate) * up, [tokens, n]. Only gate_up is kept for the
/// backward.
at::Tensor gated(const at::Tensor& gate_up, Activation activation);

/// Turns the first features, as many as the table has, of the first `heads` heads of each row of x
/// [tokens, >= heads * head_dim] in place, in the half-split layout of Hugging Face: (x1, x2) -> (x1 cos - x2
/// sin, x2 cos + x1 sin). `adjoint`: by -sin, what a gradient goes through. No autograd.
void rotate_(at::Tensor& x, int64_t heads, int64_t head_dim, const RotaryTable& table, bool adjoint);

}  // namespace efface
