// Counter-based random numbers (Philox-4x32-10, Salmon et al. 2011): element i of a tensor depends only on
// (seed, purpose, name, i), never on the mesh, the device or what was drawn before. Nothing to checkpoint.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace efface {

struct PhiloxKey {
  uint64_t seed = 0;
  std::string_view purpose;  ///< "lora_a", "kuda_noise", "batch_order", ...
  std::string_view name;     ///< the tensor's name, or the epoch, ...
};

/// The slice [row_begin, row_begin + rows) x [column_begin, column_begin + columns) of a global fp32 matrix
/// with `global_columns` columns: standard normal (Box-Muller) / uniform in [0, 1).
at::Tensor philox_normal(const PhiloxKey& key, int64_t rows, int64_t columns, int64_t row_begin = 0,
                         int64_t column_begin = 0, int64_t global_columns = -1);
at::Tensor philox_uniform(const PhiloxKey& key, int64_t rows, int64_t columns, int64_t row_begin = 0,
                          int64_t column_begin = 0, int64_t global_columns = -1);

/// A permutation of 0..n-1 (Fisher-Yates on the same counter).
std::vector<int64_t> philox_permutation(const PhiloxKey& key, int64_t n);

}  // namespace efface
