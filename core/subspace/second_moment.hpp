// sum x x^T over tokens, block rows over a group, every unordered pair of blocks computed once.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "distributed/block_rows.hpp"

namespace efface {

/// Rank r computes the lower triangle of its diagonal block (a SYRK, as row panels of GEMM: the BLAS that
/// torch exports has no ssyrk) and, for d = 1 .. (t-1)/2, the block (r, r+d mod t); the pair at distance t/2
/// of an even group is halved: the lower rank takes the first half of its rows, the upper rank the columns
/// that are left.
class SecondMomentSum {
 public:
  SecondMomentSum(int64_t n, const Communicator& group);

  /// `x` [tokens, n] fp32. Only the columns of blocks with needs_block() are read. The product is fp32, its
  /// sum with earlier ones fp64: a few thousand tokens at a time keep fp32's rounding at 1e-7.
  void add(const at::Tensor& x);
  bool needs_block(int block) const;

  /// The sum over `data` (ranks that hold the same rows), mirrored. Collective over the group and `data`. The
  /// object is empty after.
  BlockRows finish(const Communicator& data);

 private:
  struct Part {  // a rectangle of this rank's rows, or the diagonal block's triangle
    int64_t row, rows, column, columns;
    bool triangle;
  };
  void mirror();
  void exchange(int low, int high);
  at::Tensor columns_of(int block) const;

  BlockRows sum_;
  std::vector<Part> parts_;
  at::Tensor panel_;
};

}  // namespace efface
