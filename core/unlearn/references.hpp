// What the frozen model says about each training row, computed once before the first step, kept in HDF5 by
// row id, and read back from disk always (also by the run that wrote it), so that a resumed run sees the same
// bits.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"

namespace efface {

class Method;
struct TrainingPool;

/// What a method needs of a role's rows.
struct ReferenceNeeds {
  bool log_probability = false;  ///< sum of label log-probabilities: a scalar a row (NPO)
  bool label_hidden = false;     ///< normalised last hidden state at each label: [labels, hidden] (KL)
  bool below_window = false;     ///< input of layer `window_begin`: [tokens, hidden] (KUDA, RMU)
  bool representation = false;   ///< output of layer `window_end - 1`: [tokens, hidden] (KUDA, RMU)
  int window_begin = 0, window_end = 0;
};

/// Rows done, of those that this data rank computes; called after each pass.
using ReferenceProgress = std::function<void(int64_t done, int64_t total)>;

/// Values are fp32 (fp64 for an fp64 model) and the same on every rank. Tensors are read when asked for, so
/// that memory does not grow with the number of rows; a value that was not built throws Error(storage).
class ReferenceCache {
 public:
  ReferenceCache() = default;
  /// Computes what is missing in `folder` for `rows` (dealt over data ranks), writes one
  /// `references.<n>.rank<r>.h5` a data rank, barrier, and opens all of them. The model must have no adapters
  /// applied. Values are keyed by row, layer and dtype; the folder belongs to one model. Collective.
  static ReferenceCache build(const std::filesystem::path& folder, const Transformer& model,
                              const std::vector<TokenRow>& rows, const ReferenceNeeds& needs,
                              const ReferenceProgress& progress = {});
  /// The same for all rows of a pool by what `method` needs of their roles, after method.prepare(model).
  /// `progress` counts each role anew.
  static ReferenceCache build(const std::filesystem::path& folder, Transformer& model,
                              const TrainingPool& pool, const Method& method,
                              const ReferenceProgress& progress = {});

  double log_probability(uint64_t row_id) const;
  at::Tensor label_hidden(uint64_t row_id) const;             ///< [labels, hidden]
  at::Tensor below_window(uint64_t row_id, int layer) const;  ///< [tokens, hidden]: the input of `layer`
  /// [tokens, hidden]: the output of layer `window_end` - 1.
  at::Tensor representation(uint64_t row_id, int window_end) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace efface
