// What every solver asks of its matrix and of its own answer.
#pragma once

#include "distributed/eigensolver.hpp"

namespace efface {

/// Relative to the largest entry.
constexpr double kAsymmetryBound = 1e-6;
/// Of residual and orthogonality.
constexpr double kProofBound = 1e-10;

/// @throw Error(numeric) unless `largest`, the largest magnitude of a matrix, is finite
void require_finite(double largest, int64_t n, const std::string& solver);

/// @param difference the largest |C_ij - C_ji|
void require_symmetric(double difference, double largest, int64_t n, const std::string& solver);

/// @throw Error(numeric) when LAPACK's `info` is not 0
void require_converged(int info, int64_t n, const std::string& solver);

/// @throw Error(numeric) when residual or orthogonality is not below kProofBound
void require_proven(const Eigenpairs& pairs);

/// The largest magnitude of an entry; NaN when there is one, 0 for an empty tensor.
double largest_magnitude(const at::Tensor& tensor);

}  // namespace efface
