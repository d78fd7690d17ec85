// Linear layers that read one input (q, k, v; gate, up; o; down) as one product, with LoRA adapters beside
// it.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "core/model/transformer.hpp"

namespace efface {

/// Rows [offset, offset + rows) of the fused weight.
struct LinearPart {
  Projection projection = Projection::q;
  int64_t offset = 0;
  int64_t rows = 0;
  at::Tensor trained = {};  ///< the module's own leaf once it is trainable, fp32 or wider; replaces its rows
  std::optional<LoraAdapter> adapter = {};
  /// Ranks that hold the same rows (key-value heads fewer than tensor ranks); each computes with them for
  /// heads of its own, so the gradients of B and of the leaf are summed over them.
  Communicator replicas = {};
};

/// Weight [sum of rows, in], frozen: this rank's shard of every part. It lies transposed in memory, which the
/// forward product x W^T reads fastest.
struct FusedLinear {
  at::Tensor weight;
  at::Tensor bias;  ///< [sum of rows], frozen; undefined: none. A row-parallel one is not added here
  std::vector<LinearPart> parts;

  LinearPart& part(Projection projection);
  /// What the module's weight is now: its leaf (detached) or its rows of the fused matrix.
  at::Tensor local(const LinearPart& part) const;
};

/// x [tokens, in] -> [tokens, sum of rows] in x's dtype; row-parallel results are partial sums over the
/// tensor group. The adapters' A are multiplied with x in one product. Gradients flow to x, adapters and
/// leaves.
at::Tensor apply_linear(const FusedLinear& linear, const at::Tensor& x, bool with_adapters);

}  // namespace efface
