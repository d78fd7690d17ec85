#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <vector>

#include "distributed/eigensolver.hpp"
#include "distributed/eigensolvers/checks.hpp"
#include "distributed/eigensolvers/dense.hpp"
#include "distributed/eigensolvers/lapack_symbols.hpp"
#include "distributed/eigensolvers/tridiagonal.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int64_t kLargest = 32766;  // dsyevd's workspace 1 + 6 n + 2 n^2 is counted in 32 bits

struct Dsyevd {
  at::Tensor values, work;
};

/// In place. jobz V: `matrix` becomes the eigenvectors, one a row. N: what the reduction leaves there, see
/// reduction_way(). LAPACK reads by columns: a triangle of its is our other one.
Dsyevd dsyevd(const char* jobz, const char* uplo, at::Tensor& matrix) {
  const int n = static_cast<int>(matrix.size(0));
  Dsyevd result{at::empty({n}, at::kDouble), {}};
  int info = 0;
  const auto call = [&](double* work, int work_size, int* integers, int integers_size) {
    dsyevd_(jobz, uplo, &n, matrix.data_ptr<double>(), &n, result.values.data_ptr<double>(), work, &work_size,
            integers, &integers_size, &info);
    require_converged(info, n, "dsyevd");
  };
  double work_wanted = 0;
  int integers_wanted = 0;
  call(&work_wanted, -1, &integers_wanted, -1);
  result.work = at::empty({static_cast<int64_t>(work_wanted)}, at::kDouble);
  std::vector<int> integers(static_cast<size_t>(integers_wanted));
  call(result.work.data_ptr<double>(), static_cast<int>(result.work.numel()), integers.data(),
       integers_wanted);
  return result;
}

/// A = Q T Q^T, T tridiagonal.
struct Reduced {
  at::Tensor reflectors;  ///< [n, n]: row i holds reflector i right of the diagonal's neighbour
  at::Tensor scales;      ///< [n - 1]: tau of each
  std::vector<double> diagonal, off_diagonal;
};

/// MKL's dsytrd is not exported, but dsyevd without vectors begins with it and leaves its result: T on the
/// diagonal and beside it, the reflectors beyond, their scales in the workspace from n on. The standard calls
/// the matrix "destroyed": with a library that does otherwise the proof fails, and dsyevd solves in its own
/// way.
Reduced reduce(const at::Tensor& symmetric) {
  Reduced result;
  result.reflectors = symmetric.clone(at::MemoryFormat::Contiguous);
  const int64_t n = symmetric.size(0);
  const at::Tensor work = dsyevd("N", "L", result.reflectors).work;
  result.scales = work.narrow(0, n, n - 1).clone();
  const auto numbers = [](const at::Tensor& strided) {
    const at::Tensor dense = strided.contiguous();
    return std::vector<double>(dense.data_ptr<double>(), dense.data_ptr<double>() + dense.numel());
  };
  result.diagonal = numbers(result.reflectors.diagonal());
  result.off_diagonal = numbers(result.reflectors.diagonal(1));
  return result;
}

/// In place: rows of eigenvectors of T become those of A, v -> Q v.
void take_back(const Reduced& reduced, at::Tensor& rows) {
  const int n = static_cast<int>(reduced.reflectors.size(0)), order = n - 1,
            count = static_cast<int>(rows.size(0));
  if (count == 0) return;
  const double* reflectors = reduced.reflectors.data_ptr<double>() + 1;  // Q leaves the first axis alone
  int info = 0;
  const auto call = [&](double* work, int work_size) {
    dormqr_("L", "N", &order, &count, &order, reflectors, &n, reduced.scales.data_ptr<double>(),
            rows.data_ptr<double>() + 1, &n, work, &work_size, &info);
    require_converged(info, n, "dormqr");
  };
  double work_wanted = 0;
  call(&work_wanted, -1);
  auto work = at::empty({static_cast<int64_t>(work_wanted)}, at::kDouble);
  call(work.data_ptr<double>(), static_cast<int>(work.numel()));
}

/// ||R R^T - I||_F of rows R [m, n]: the blocks of the symmetric product above its diagonal are not computed.
double distance_from_orthonormal(const at::Tensor& rows) {
  constexpr int64_t kPanels = 8;
  const int64_t count = rows.size(0), panel = (count + kPanels - 1) / kPanels;
  double squares = 0;
  for (int64_t begin = 0; begin < count; begin += panel) {
    const int64_t width = std::min(panel, count - begin), end = begin + width;
    const at::Tensor products = at::mm(rows.narrow(0, begin, width), rows.narrow(0, 0, end).t());
    const at::Tensor diagonal_block = products.narrow(1, begin, width);
    diagonal_block.diagonal().sub_(1);
    squares += 2 * products.square().sum().item<double>() - diagonal_block.square().sum().item<double>();
  }
  return std::sqrt(squares);
}

Eigenpairs attempt(const ScaledMatrix& scaled, const WantedVectors& wanted, const DenseWay& way) {
  const DenseSolution solution = way.solve(scaled.matrix);
  const int64_t n = scaled.matrix.size(0);
  const at::Tensor values = solution.values.flip(0);
  Eigenpairs pairs;
  pairs.solver = "lapack " + way.name;
  pairs.values = values * scaled.scale;
  const auto [first, last] = wanted_range(wanted, pairs.values);
  const int64_t count = last - first;
  pairs.first = first;
  const at::Tensor ascending = solution.rows(n - last, n - first);  // one eigenvector a row
  pairs.vectors = ascending.flip(0).t().contiguous();

  const auto residual = at::mm(ascending, scaled.matrix)
                            .sub_(ascending * solution.values.narrow(0, n - last, count).unsqueeze(1));
  const double norm = scaled.matrix.norm().item<double>();
  pairs.residual = residual.norm().item<double>() / (norm > 0 ? norm : 1);
  pairs.orthogonality =
      distance_from_orthonormal(ascending) / std::sqrt(static_cast<double>(std::max<int64_t>(1, count)));
  require_proven(pairs);
  return pairs;
}

}  // namespace

DenseWay reduction_way() {
  return {"dsytrd + divide and conquer", [](const at::Tensor& symmetric) -> DenseSolution {
            const auto reduced = std::make_shared<const Reduced>(reduce(symmetric));
            const auto pairs =
                std::make_shared<const TridiagonalEigenpairs>(reduced->diagonal, reduced->off_diagonal);
            return {at::tensor(pairs->values(), at::kDouble), [reduced, pairs](int64_t begin, int64_t end) {
                      at::Tensor rows = pairs->vectors(begin, end);
                      take_back(*reduced, rows);
                      return rows;
                    }};
          }};
}

DenseWay dsyevd_way() {
  return {
      "dsyevd", [](const at::Tensor& symmetric) -> DenseSolution {
        at::Tensor rows = symmetric.clone(at::MemoryFormat::Contiguous);
        const at::Tensor values = dsyevd("V", "U", rows).values;
        return {values, [rows](int64_t begin, int64_t end) { return rows.narrow(0, begin, end - begin); }};
      }};
}

Eigenpairs solve_dense(const at::Tensor& matrix, const WantedVectors& wanted,
                       const std::vector<DenseWay>& ways) {
  const auto begin = std::chrono::steady_clock::now();
  const ScaledMatrix scaled = scaled_symmetric(matrix, "LAPACK");
  std::string failed;
  for (size_t i = 0;; ++i) {
    try {
      Eigenpairs pairs = attempt(scaled, wanted, ways[i]);
      pairs.solver += failed;
      pairs.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      return pairs;
    } catch (const SolverFailed&) {
      if (i + 1 == ways.size()) throw;
      failed += ", after " + ways[i].name + " failed";
    }
  }
}

Eigenpairs solve_lapack(const at::Tensor& matrix, const WantedVectors& wanted) {
  const int64_t n = matrix.dim() == 2 ? matrix.size(0) : 0;
  if (n > kLargest)
    throw Error(ErrorClass::numeric,
                "LAPACK solves up to n = " + std::to_string(kLargest) + ", not " + std::to_string(n),
                "spread the matrix over ranks with ScaLAPACK");
  // The reduction has been measured to take 1.6 to 1.8 times as long where MKL has dsyevd
  // (benchmarks/README.md).
  return solve_dense(matrix, wanted, {dsyevd_way(), reduction_way()});
}

}  // namespace efface
