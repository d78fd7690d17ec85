// Covariances with a known spectrum, and dense projectors to compare with.
#pragma once

#include <ATen/ATen.h>

#include "core/subspace/projector.hpp"
#include "distributed/philox.hpp"

namespace efface::testing {

inline at::Tensor random_matrix(int64_t rows, int64_t columns, std::string_view name) {
  return philox_normal({11, "subspace_test", name}, rows, columns).to(at::kDouble);
}

/// Orthonormal columns [n, n].
inline at::Tensor random_rotation(int64_t n) {
  return std::get<0>(at::linalg_qr(random_matrix(n, n, "rotation")));
}

/// Descending: ratio^0, ratio^1, ...
inline at::Tensor geometric_spectrum(int64_t n, double ratio = 0.8) {
  return at::pow(at::full({}, ratio, at::kDouble), at::arange(n, at::kDouble));
}

inline at::Tensor dense_projector(const Basis& basis) {
  const at::Tensor v = basis.vectors.to(at::kDouble);
  if (basis.complement) return v.matmul(v.t());
  const at::Tensor w = basis.weights.to(at::kDouble).unsqueeze(0);
  return at::eye(basis.n, at::kDouble) - (v * w).matmul(v.t());
}

}  // namespace efface::testing
