// Tokens gathered until a product is worth its call, then added to a second moment.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/subspace/second_moment.hpp"

namespace efface {

class StoreFile;  // store_manifest.hpp
class StoreFileWriter;

/// Tokens as column blocks in order, [tokens, n_s] each: one a rank of the tensor group.
using ColumnBlocks = std::vector<at::Tensor>;

/// At most this many tokens go into one product (a scratch buffer shared by all inputs holds them) ...
inline constexpr int64_t kProductTokens = 2048;
/// ... and at least this many, but at the end; fewer wait in a buffer of the input's own.
inline constexpr int64_t kFewestTokens = 1024;

/// Squared norm of each token, [tokens] fp64.
at::Tensor squared_norms(const ColumnBlocks& blocks);

class StagedSecondMoment {
 public:
  StagedSecondMoment(int64_t n, const Communicator& group) : n_(n), sum_(n, group) {}

  /// Tokens `index` [c] int64 of `blocks` (any dtype, the same in every call), token i scaled by scale[i]
  /// where `scale` [c] is defined (in every call or in none). Taken to fp32, but for unscaled bf16 that the
  /// processor multiplies exactly. `scratch` is reused from call to call, and between inputs.
  void add(const ColumnBlocks& blocks, const at::Tensor& index, const at::Tensor& scale,
           ProductScratch& scratch);
  /// What waits is added; then SecondMomentSum::finish().
  BlockRows finish(const Communicator& data);

  /// This rank's sum and what waits, to the bit, under "<name>/"; a restored one goes on as the saved one
  /// would have. restore() throws Error(storage).
  void save(StoreFileWriter& file, const std::string& name) const;
  void restore(const StoreFile& file, const std::string& name, at::Device device);

 private:
  at::Tensor empty_waiting(at::Device device) const;
  void gather(at::Tensor into, const ColumnBlocks& blocks, const at::Tensor& index) const;

  int64_t n_;
  SecondMomentSum sum_;
  at::ScalarType dtype_ = at::kFloat;  // of what waits and of the products
  at::Tensor waiting_;                 // [kFewestTokens, n]
  int64_t waiting_tokens_ = 0;
};

}  // namespace efface
