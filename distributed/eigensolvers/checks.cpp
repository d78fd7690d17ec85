#include "distributed/eigensolvers/checks.hpp"

#include <cmath>
#include <sstream>

namespace efface {
namespace {

std::string subject(int64_t n, const std::string& solver) {
  return "the " + std::to_string(n) + " x " + std::to_string(n) + " matrix given to " + solver;
}

std::string scientific(double value) {
  std::ostringstream text;
  text.precision(3);
  text << value;
  return text.str();
}

}  // namespace

void require_finite(double largest, int64_t n, const std::string& solver) {
  if (std::isfinite(largest)) return;
  throw Error(ErrorClass::numeric, subject(n, solver) + " has NaN or infinite entries",
              "look for overflowing activations, or accumulate in a wider type");
}

void require_symmetric(double difference, double largest, int64_t n, const std::string& solver) {
  if (difference <= kAsymmetryBound * largest) return;
  throw Error(ErrorClass::numeric, subject(n, solver) +
                                       " is not symmetric: entries differ from their mirror images by " +
                                       scientific(difference / largest) + " of the largest");
}

void require_converged(int info, int64_t n, const std::string& solver) {
  if (info == 0) return;
  throw SolverFailed(solver + " did not converge on " + subject(n, solver) + " (info " +
                     std::to_string(info) + ")");
}

void require_proven(const Eigenpairs& pairs) {
  // Negated, so that NaN fails.
  if (pairs.residual <= kProofBound && pairs.orthogonality <= kProofBound) return;
  throw SolverFailed("the eigenpairs of " + pairs.solver + " are not accurate: residual " +
                     scientific(pairs.residual) + ", orthogonality " + scientific(pairs.orthogonality));
}

std::pair<int64_t, int64_t> wanted_range(const WantedVectors& wanted, const at::Tensor& values) {
  const int64_t n = values.numel();
  if (!wanted) return {0, n};
  const auto [begin, end] = wanted(values);
  if (0 <= begin && begin <= end && end <= n) return {begin, end};
  throw Error(ErrorClass::numeric, "eigenvectors " + std::to_string(begin) + " to " + std::to_string(end) +
                                       " are wanted of " + std::to_string(n));
}

ScaledMatrix scaled_symmetric(const at::Tensor& given, const std::string& solver) {
  const int64_t n = given.dim() == 2 && given.size(0) == given.size(1) ? given.size(0) : 0;
  if (n == 0) throw Error(ErrorClass::numeric, solver + " needs a square matrix with at least one row");
  const at::Tensor matrix = given.detach().to(at::kCPU, at::kDouble);
  const double largest = largest_magnitude(matrix);
  require_finite(largest, n, solver);
  require_symmetric(largest_magnitude(matrix - matrix.t()), largest, n, solver);
  const double scale = largest > 0 ? largest : 1;
  return {(matrix.tril() + matrix.tril(-1).t()).div_(scale), scale};
}

double largest_magnitude(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0. : tensor.abs().max().item<double>();
}

}  // namespace efface
