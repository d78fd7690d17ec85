// Sums of outer products on CPUs with AVX-512, where a covariance spends its time: BLAS would compute the
// half above the diagonal too, write each fp32 product to memory and read it back for the fp64 sum, and widen
// bf16 inputs first. Here a tile of the result stays in cache from the first token to its addition.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace efface {

/// Some columns of a chunk of tokens, in the order the kernel reads them: panels of 48 columns, token after
/// token, the last panel filled up with zeros. bf16 tokens lie in pairs.
class PackedColumns {
 public:
  /// CPU tensors of fp32, or of bf16 where the processor multiplies them.
  static bool suit(const at::Tensor& x);
  static bool suit(at::ScalarType dtype);

  /// x [tokens, columns], rows contiguous in memory, any stride between them. Reuses its memory.
  void pack(const at::Tensor& x);
  int64_t columns() const { return columns_; }

 private:
  friend void add_outer_product(at::Tensor sum, const PackedColumns& rows, const PackedColumns& columns,
                                bool triangle);
  std::vector<uint32_t> values_;
  int64_t steps_ = 0, columns_ = 0;
  bool bf16_ = false;
};

/// sum[i, j] += sum over tokens of rows[t, i] columns[t, j] for the first sum.size(0) columns of `rows`.
/// `sum` is fp64 with contiguous rows; products are summed in fp32 over the chunk, then added. triangle:
/// `rows` and `columns` are the same, only j <= i is meant, and what lies above is left undefined.
void add_outer_product(at::Tensor sum, const PackedColumns& rows, const PackedColumns& columns,
                       bool triangle);

}  // namespace efface
