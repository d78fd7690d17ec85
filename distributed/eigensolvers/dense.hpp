// The eigenpairs of a whole matrix on one rank: several ways, the next one taken when one fails its proof.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distributed/eigensolver.hpp"

namespace efface {

/// Values [n] ascending; rows(begin, end) gives the eigenvectors of values[begin .. end), [end - begin, n].
struct DenseSolution {
  at::Tensor values;
  std::function<at::Tensor(int64_t begin, int64_t end)> rows;
};

struct DenseWay {
  std::string name;
  /// `symmetric` [n, n] fp64, contiguous, its largest entry 1. Throws SolverFailed.
  std::function<DenseSolution(const at::Tensor& symmetric)> solve;
};

/// Householder reduction to a tridiagonal matrix, divide and conquer there, and only the wanted eigenvectors
/// taken back.
DenseWay reduction_way();
/// LAPACK's dsyevd, all eigenvectors.
DenseWay dsyevd_way();

/// solve_lapack() by the first of `ways` whose answer is proven; the last one's failure is thrown.
/// Eigenpairs::solver says which failed before.
Eigenpairs solve_dense(const at::Tensor& matrix, const WantedVectors& wanted,
                       const std::vector<DenseWay>& ways);

}  // namespace efface
