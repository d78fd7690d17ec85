#include <algorithm>
#include <chrono>
#include <cmath>
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

}  // namespace

Eigenpairs solve_lapack(const at::Tensor& matrix, const WantedVectors& wanted) {
  const auto begin = std::chrono::steady_clock::now();
  const int64_t n = matrix.dim() == 2 ? matrix.size(0) : 0;
  if (n > kLargest)
    throw Error(ErrorClass::numeric,
                "dsyevd solves up to n = " + std::to_string(kLargest) + ", not " + std::to_string(n),
                "spread the matrix over ranks with ScaLAPACK");
  const auto [scaled, scale] = scaled_symmetric(matrix, "dsyevd");
  auto ascending = scaled.clone(at::MemoryFormat::Contiguous);
  const auto values = dsyevd(ascending).flip(0);
  Eigenpairs pairs;
  pairs.solver = "lapack dsyevd";
  pairs.values = values * scale;
  const auto [first, last] = wanted_range(wanted, pairs.values);
  const int64_t count = last - first;
  pairs.first = first;
  const auto rows = ascending.narrow(0, n - last, count).flip(0);  // one eigenvector each
  pairs.vectors = rows.t().contiguous();

  const auto residual = at::mm(scaled, pairs.vectors).sub_(pairs.vectors * values.narrow(0, first, count));
  const double norm = scaled.norm().item<double>();
  pairs.residual = residual.norm().item<double>() / (norm > 0 ? norm : 1);
  const auto products = at::mm(rows, pairs.vectors);
  products.diagonal().sub_(1);
  pairs.orthogonality =
      products.norm().item<double>() / std::sqrt(static_cast<double>(std::max<int64_t>(1, count)));
  pairs.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  require_proven(pairs);
  return pairs;
}

}  // namespace efface
