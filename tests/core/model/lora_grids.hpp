// The adapter factors that the reference scripts give PEFT, computed from their indices.
#pragma once

#include <ATen/ATen.h>

#include <cmath>

namespace efface::testing {

/// [rows, columns] of f(1 .. rows, 1 .. columns), fp32, computed in fp64.
template <class Function>
at::Tensor grid(int64_t rows, int64_t columns, const Function& f) {
  return f(at::arange(1, rows + 1, at::kDouble).unsqueeze(1),
           at::arange(1, columns + 1, at::kDouble).unsqueeze(0))
      .to(at::kFloat);
}
inline at::Tensor lora_a_grid(int64_t rows, int64_t columns) {
  return grid(rows, columns, [&](const at::Tensor& i, const at::Tensor& j) {
    return at::sin(0.37 * i + 0.11 * j) / std::sqrt(static_cast<double>(columns));
  });
}
inline at::Tensor lora_b_grid(int64_t rows, int64_t columns) {
  return grid(rows, columns,
              [](const at::Tensor& i, const at::Tensor& j) { return 0.01 * at::cos(0.23 * i + 0.31 * j); });
}

}  // namespace efface::testing
