// sum x x^T over tokens, block rows over a group, every unordered pair of blocks computed once.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "core/subspace/cpu_outer_product.hpp"
#include "distributed/block_rows.hpp"

namespace efface {

/// Working memory of products, shared by all sums of a pass.
struct ProductScratch {
  at::Tensor tokens;          ///< a chunk of tokens (StagedSecondMoment)
  at::Tensor panel;           ///< a product by BLAS
  PackedColumns mine, other;  ///< the operands of add_outer_product()
};

/// Rank r computes the lower triangle of its diagonal block (by add_outer_product() where the processor has
/// it, else as row panels of GEMM: the BLAS that torch exports has no ssyrk) and, for d = 1 .. (t-1)/2, the
/// block (r, r+d mod t); the pair at distance t/2 of an even group is halved: the lower rank takes the first
/// half of its rows, the upper rank the columns that are left.
class SecondMomentSum {
 public:
  SecondMomentSum(int64_t n, const Communicator& group);

  /// `x` [tokens, n] fp32, or bf16 where PackedColumns suits it. Only the columns of blocks with
  /// needs_block() are read. The product is fp32, its sum with earlier ones fp64: a few thousand tokens at a
  /// time keep fp32's rounding at 1e-7.
  void add(const at::Tensor& x, ProductScratch& scratch);
  bool needs_block(int block) const;

  /// The sum over `data` (ranks that hold the same rows), mirrored. Collective over the group and `data`. The
  /// object is empty after.
  BlockRows finish(const Communicator& data);

  /// What has been added on this rank, [its block rows, n] fp64: neither reduced nor mirrored.
  at::Tensor& partial() { return sum_.local; }
  const at::Tensor& partial() const { return sum_.local; }

 private:
  struct Part {  // a rectangle of this rank's rows, or the diagonal block's triangle
    int64_t row, rows, column, columns;
    bool triangle;
  };
  void add_packed(const at::Tensor& x, ProductScratch& scratch);
  void add_by_blas(const at::Tensor& x, ProductScratch& scratch);
  void mirror();
  void exchange(int low, int high);
  at::Tensor columns_of(int block) const;

  BlockRows sum_;
  std::vector<Part> parts_;
};

}  // namespace efface
