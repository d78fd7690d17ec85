#include "distributed/eigensolvers/checks.hpp"

#include <cmath>
#include <sstream>

#include "distributed/error.hpp"

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
  throw Error(ErrorClass::numeric,
              solver + " did not converge on " + subject(n, solver) + " (info " + std::to_string(info) + ")");
}

void require_proven(const Eigenpairs& pairs) {
  // Negated, so that NaN fails.
  if (pairs.residual <= kProofBound && pairs.orthogonality <= kProofBound) return;
  throw Error(ErrorClass::numeric, "the eigenpairs of " + pairs.solver + " are not accurate: residual " +
                                       scientific(pairs.residual) + ", orthogonality " +
                                       scientific(pairs.orthogonality));
}

double largest_magnitude(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0. : tensor.abs().max().item<double>();
}

}  // namespace efface
