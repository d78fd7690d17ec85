#include <chrono>
#include <vector>

#include "distributed/eigensolver.hpp"
#include "distributed/eigensolvers/checks.hpp"
#include "distributed/eigensolvers/lapack_symbols.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int64_t kLargest = 32766;  // the workspace 1 + 6 n + 2 n^2 is counted in 32 bits

/// In place: `matrix` (symmetric) becomes the eigenvectors, one a row, ascending. -> [n] values
at::Tensor dsyevd(at::Tensor& matrix) {
  const int n = static_cast<int>(matrix.size(0));
  auto values = at::empty({n}, at::kDouble);
  int info = 0;
  const auto call = [&](double* work, int work_size, int* integers, int integers_size) {
    // LAPACK reads by columns: its upper triangle is our lower one.
    dsyevd_("V", "U", &n, matrix.data_ptr<double>(), &n, values.data_ptr<double>(), work, &work_size,
            integers, &integers_size, &info);
    require_converged(info, n, "dsyevd");
  };
  double work_wanted = 0;
  int integers_wanted = 0;
  call(&work_wanted, -1, &integers_wanted, -1);
  auto work = at::empty({static_cast<int64_t>(work_wanted)}, at::kDouble);
  std::vector<int> integers(static_cast<size_t>(integers_wanted));
  call(work.data_ptr<double>(), static_cast<int>(work.numel()), integers.data(), integers_wanted);
  return values;
}

at::Tensor symmetric_from_lower(const at::Tensor& matrix) { return matrix.tril() + matrix.tril(-1).t(); }

}  // namespace

Eigenpairs solve_lapack(const at::Tensor& matrix) {
  const auto begin = std::chrono::steady_clock::now();
  const int64_t n = matrix.dim() == 2 && matrix.size(0) == matrix.size(1) ? matrix.size(0) : 0;
  if (n == 0) throw Error(ErrorClass::numeric, "dsyevd needs a square matrix with at least one row");
  if (n > kLargest)
    throw Error(ErrorClass::numeric,
                "dsyevd solves up to n = " + std::to_string(kLargest) + ", not " + std::to_string(n),
                "spread the matrix over ranks with ScaLAPACK");
  const auto given = matrix.detach().to(at::kCPU, at::kDouble);
  const double largest = largest_magnitude(given);
  require_finite(largest, n, "dsyevd");
  require_symmetric(largest_magnitude(given - given.t()), largest, n, "dsyevd");

  // Scaled to entries of order 1, so that norms of very small or very large matrices do not leave the range.
  const double scale = largest > 0 ? largest : 1;
  const auto scaled = symmetric_from_lower(given).div_(scale);
  auto ascending = scaled.clone(at::MemoryFormat::Contiguous);
  const auto values = dsyevd(ascending).flip(0);
  Eigenpairs pairs;
  pairs.vectors = ascending.flip(0).t().contiguous();
  pairs.solver = "lapack dsyevd";

  auto product = at::mm(scaled, pairs.vectors);
  const double norm = scaled.norm().item<double>();
  pairs.residual = (product - pairs.vectors * values).norm().item<double>() / (norm > 0 ? norm : 1);
  at::mm_out(product, pairs.vectors.t(), pairs.vectors);
  product.diagonal().sub_(1);
  pairs.orthogonality = product.norm().item<double>() / std::sqrt(static_cast<double>(n));
  pairs.values = values * scale;
  pairs.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  require_proven(pairs);
  return pairs;
}

}  // namespace efface
