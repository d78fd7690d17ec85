// What the frozen model says about each training row, computed once before the first step, kept in HDF5 by row
// id, and read back from disk always (also by the run that wrote it), so that a resumed run sees the same bits.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"

namespace efface {

/// What a method needs of a role's rows.
struct ReferenceNeeds {
  bool log_probability = false;   ///< sum of label log-probabilities: a scalar a row (NPO)
  bool label_hidden = false;      ///< normalised last hidden state at each label: [labels, hidden] (KL)
  bool below_window = false;      ///< input of layer `window_begin`: [tokens, hidden] (KUDA, RMU)
  bool representation = false;    ///< output of layer `window_end - 1`: [tokens, hidden] (KUDA, RMU)
  int window_begin = 0, window_end = 0;
};

class ReferenceCache {
 public:
  ReferenceCache() = default;
  /// Computes what is missing for `rows` (dealt over data ranks), writes `folder`/references.rank*.h5, barrier,
  /// and reads back what this rank may need (every row). fp32. Collective over the mesh.
  static ReferenceCache build(const std::filesystem::path& folder, const Transformer& model,
                              const std::vector<TokenRow>& rows, const ReferenceNeeds& needs);

  double log_probability(uint64_t row_id) const;
  at::Tensor label_hidden(uint64_t row_id) const;
  at::Tensor below_window(uint64_t row_id) const;
  at::Tensor representation(uint64_t row_id) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace efface
