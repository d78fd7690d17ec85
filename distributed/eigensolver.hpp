// Eigenpairs of a symmetric matrix, by whichever solver fits. Every solve ends with its own proof: the
// residual
// ||C V - V diag(lambda)||_F / ||C||_F and the orthogonality ||V^T V - I||_F / sqrt(n).
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "distributed/block_rows.hpp"

namespace efface {

struct Eigenpairs {
  at::Tensor values;         ///< [n] fp64, descending
  at::Tensor vectors;        ///< LAPACK: [n, n] fp64, column i belongs to values[i].
                             ///< Over a group: this rank's rows of it, [rows, n]
  double residual = 0;       ///< relative to ||C||_F
  double orthogonality = 0;  ///< per sqrt(n)
  std::string solver;
  double seconds = 0;
};

/// One rank, the whole matrix [n, n] (fp32 or fp64; only the lower triangle is read), by LAPACK's divide and
/// conquer (dsyevd) in fp64. Throws Error(numeric) on NaN or Inf, asymmetry (> 1e-6 relative), or a residual
/// or orthogonality above 1e-10.
Eigenpairs solve_lapack(const at::Tensor& matrix);

/// All ranks of matrix.group, by ScaLAPACK's pdsyevd; eigenvectors come back in the same block rows. No row
/// of the matrix is redistributed (eigensolvers/block_cyclic.hpp), any n >= 1 will do, and only the lower
/// triangle is read. A group of one goes to solve_lapack. Same errors, on all ranks alike. Collective.
Eigenpairs solve_scalapack(const BlockRows& matrix);

/// What an eigenproblem of width n costs, for spreading: ~ n^3.
struct EigenTask {
  std::string name;
  int64_t n = 0;
};

/// Longest-processing-time-first: owner[i] in [0, ranks) for each task. Deterministic.
std::vector<int> spread_by_cost(const std::vector<EigenTask>& tasks, int ranks);

}  // namespace efface
