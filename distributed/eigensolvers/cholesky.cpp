#include <chrono>
#include <cmath>

#include "distributed/eigensolver.hpp"
#include "distributed/eigensolvers/checks.hpp"
#include "distributed/error.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

constexpr const char* kSolver = "lapack dpotrf";
constexpr int64_t kProbes = 8;

}  // namespace

RidgeFactor solve_ridge(const at::Tensor& matrix, double shift) {
  const auto begin = std::chrono::steady_clock::now();
  auto [shifted, scale] = scaled_symmetric(matrix, kSolver);
  const double tau = shift / scale;
  if (!(tau > 0) || !std::isfinite(tau))
    throw Error(ErrorClass::numeric, "the ridge filter needs a positive shift, not " + std::to_string(shift));
  shifted.diagonal().add_(tau);
  const auto [factor, info] = at::linalg_cholesky_ex(shifted);
  if (info.item<int>() != 0)
    throw Error(
        ErrorClass::numeric,
        "the matrix is not positive definite with its shift (row " + std::to_string(info.item<int>()) + ")",
        "raise 'nullspace.ridge_shift'");
  // C + shift I = L L^T, so shift (C + shift I)^-1 = (sqrt(shift) L^-T) (sqrt(shift) L^-T)^T.
  RidgeFactor result;
  const auto identity = at::eye(shifted.size(0), shifted.options());
  result.vectors = at::linalg_solve_triangular(factor, identity, /*upper=*/false).mul_(std::sqrt(tau)).t();
  result.solver = kSolver;

  const at::Tensor z = philox_normal({0, "ridge", "probes"}, shifted.size(0), kProbes).to(at::kDouble);
  const at::Tensor back = shifted.matmul(result.vectors.matmul(result.vectors.t().matmul(z))).div_(tau);
  result.residual =
      ((back - z).square().sum(0) / z.square().sum(0).clamp_min(1e-300)).max().sqrt().item<double>();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!(result.residual <= kProofBound))  // negated, so that NaN fails
    throw Error(ErrorClass::numeric,
                "the ridge filter is not accurate: residual " + std::to_string(result.residual),
                "raise 'nullspace.ridge_shift', or choose 'nullspace.solver: lapack'");
  return result;
}

}  // namespace efface
