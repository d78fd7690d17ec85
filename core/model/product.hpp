// The matrix product of the layers, by the fastest of what ATen carries.
#pragma once

#include <ATen/ATen.h>

namespace efface {

/// a [m, k] b [k, n] -> [m, n], without autograd. In fp32 on the CPU by oneDNN, which is a tenth to a fifth
/// faster there than the BLAS behind at::mm; else at::mm.
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b);

}  // namespace efface
