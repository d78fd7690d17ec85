// A symmetric n x n matrix in block rows over a group: rank r stores rows [offset, offset + rows) x n.
#pragma once

#include <ATen/ATen.h>

#include "distributed/communicator.hpp"

namespace efface {

struct BlockRows {
  int64_t n = 0;
  int64_t offset = 0;  ///< first row of this rank; even_range(n, rank, size)
  at::Tensor local;    ///< [rows, n], fp64 on the CPU unless said otherwise
  Communicator group;

  int64_t rows() const { return local.size(0); }
};

BlockRows make_block_rows(int64_t n, const Communicator& group, at::ScalarType dtype = at::kDouble);

/// The whole matrix on `root`, an undefined tensor elsewhere: [n, n], or as wide as `local` where that holds
/// some columns alone (the same on every rank).
at::Tensor gather_block_rows(const BlockRows& matrix, int root);

double trace(const BlockRows& matrix);           ///< the same on every rank
double frobenius_norm(const BlockRows& matrix);  ///< the same on every rank

}  // namespace efface
