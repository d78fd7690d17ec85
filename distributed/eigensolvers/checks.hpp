// What every solver asks of its matrix and of its own answer.
#pragma once

#include "distributed/eigensolver.hpp"
#include "distributed/error.hpp"

namespace efface {

/// Relative to the largest entry.
constexpr double kAsymmetryBound = 1e-6;
/// Of residual and orthogonality.
constexpr double kProofBound = 1e-10;

/// @throw Error(numeric) unless `largest`, the largest magnitude of a matrix, is finite
void require_finite(double largest, int64_t n, const std::string& solver);

/// @param difference the largest |C_ij - C_ji|
void require_symmetric(double difference, double largest, int64_t n, const std::string& solver);

/// A solver that failed on a matrix with which nothing is wrong: another may do.
class SolverFailed : public Error {
 public:
  explicit SolverFailed(const std::string& what) : Error(ErrorClass::numeric, what) {}
};

/// @throw SolverFailed when LAPACK's `info` is not 0
void require_converged(int info, int64_t n, const std::string& solver);

/// @throw SolverFailed when residual or orthogonality is not below kProofBound
void require_proven(const Eigenpairs& pairs);

/// What is wanted of `values`, all where `wanted` is empty. @throw Error(numeric) when it is not a range of
/// them
std::pair<int64_t, int64_t> wanted_range(const WantedVectors& wanted, const at::Tensor& values);

/// fp64 on the CPU, what lies above the diagonal taken from below, divided by the largest magnitude of an
/// entry, `scale` (1 for a zero matrix): norms of very small or very large matrices would leave the range.
struct ScaledMatrix {
  at::Tensor matrix;
  double scale = 1;
};
/// @throw Error(numeric) when `given` is not a square of at least one row, has NaN or Inf, or is not
/// symmetric
ScaledMatrix scaled_symmetric(const at::Tensor& given, const std::string& solver);

/// The largest magnitude of an entry; NaN when there is one, 0 for an empty tensor.
double largest_magnitude(const at::Tensor& tensor);

}  // namespace efface
