// Eigenpairs of a symmetric matrix, by whichever solver fits. Every solve ends with its own proof, over the m
// vectors it gives: the residual ||C V - V diag(lambda)||_F / ||C||_F and the orthogonality
// ||V^T V - I||_F / sqrt(m).
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "distributed/block_rows.hpp"

namespace efface {

struct Eigenpairs {
  at::Tensor values;         ///< [n] fp64, descending
  int64_t first = 0;         ///< column i of `vectors` belongs to values[first + i]
  at::Tensor vectors;        ///< LAPACK: [n, m] fp64. Over a group: this rank's rows of it, [rows, m]
  double residual = 0;       ///< relative to ||C||_F
  double orthogonality = 0;  ///< per sqrt(m)
  std::string solver;
  double seconds = 0;
};

/// Which eigenvectors are wanted, once the values [n] are known: [begin, end) of their descending order. What
/// it throws, the solver throws. An empty function: all of them.
using WantedVectors = std::function<std::pair<int64_t, int64_t>(const at::Tensor& values)>;

/// One rank, the whole matrix [n, n] (fp32 or fp64; only the lower triangle is read), in fp64: by dsyevd, and
/// where that fails its proof by a reduction and divide and conquer of our own (eigensolvers/dense.hpp).
/// Throws Error(numeric) on NaN or Inf, asymmetry (> 1e-6 relative), or a residual or orthogonality above
/// 1e-10 of both.
Eigenpairs solve_lapack(const at::Tensor& matrix, const WantedVectors& wanted = {});

/// All ranks of matrix.group, by ScaLAPACK's pdsyevd; eigenvectors come back in the same block rows. No row
/// of the matrix is redistributed (eigensolvers/block_cyclic.hpp), any n >= 1 will do, and only the lower
/// triangle is read. A group of one goes to solve_lapack. `wanted` must answer alike on all ranks. Same
/// errors, on all ranks alike. Collective.
Eigenpairs solve_scalapack(const BlockRows& matrix, const WantedVectors& wanted = {});

/// V [n, n] fp64, upper triangular, with V V^T = shift (C + shift I)^-1: the ridge filter of a positive
/// semi-definite C without eigenvectors, by Cholesky, 4/3 n^3 operations.
struct RidgeFactor {
  at::Tensor vectors;
  double residual = 0;  ///< the largest ||(C + shift I) P z / shift - z|| / ||z|| over a few random z
  std::string solver;
  double seconds = 0;
};
/// One rank, the whole matrix [n, n] (fp32 or fp64; only the lower triangle is read); shift > 0. Throws
/// Error(numeric) on NaN or Inf, asymmetry, a matrix that is not positive definite with the shift, or a
/// residual above 1e-10.
RidgeFactor solve_ridge(const at::Tensor& matrix, double shift);

/// What an eigenproblem of width n costs, for spreading: ~ n^3.
struct EigenTask {
  std::string name;
  int64_t n = 0;
};

/// Longest-processing-time-first: owner[i] in [0, ranks) for each task. Deterministic.
std::vector<int> spread_by_cost(const std::vector<EigenTask>& tasks, int ranks);

}  // namespace efface
