// Row kernels of the memory-bound passes on the CPU, each one pass over its data, where ATen's operations
// would take three to six. float, bf16 (arithmetic in fp32); contiguous rows unless a stride is given.
#pragma once

#include <ATen/ATen.h>

namespace efface::cpu_kernels {

/// CPU tensors of fp32 or bf16: these kernels are for them. Everything else takes the ATen form.
bool suit(const at::Tensor& x);

/// Returns x * scale * weight (of any dtype, read as fp32) and fills `scale` [tokens, 1] with 1 /
/// sqrt(mean(x^2) + eps).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::Tensor& scale);
/// d x of it.
at::Tensor rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& scale);

/// gate_up [tokens, 2 n] -> silu(gate) * up [tokens, n].
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor swiglu_backward(const at::Tensor& dy, const at::Tensor& gate_up);

/// Turns the first 2 n features of the first `heads` heads of each row of x in place; cos, sin [tokens, n]
/// fp32.
void rotate_(at::Tensor& x, int64_t heads, int64_t head_dim, const at::Tensor& cos, const at::Tensor& sin,
             bool adjoint);

/// logits [m, n] fp32 -> exp(logits - maximum[row]) in place; returns their sums [m].
at::Tensor exponentiate_(at::Tensor& logits, const at::Tensor& maximum);

}  // namespace efface::cpu_kernels
