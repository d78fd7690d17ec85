// The one forward pass of KUDA and RMU: from the cached input of the window's first layer through the
// window's layers, nothing below and nothing above.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <vector>

#include "core/unlearn/method.hpp"

namespace efface {

class WindowPass {
 public:
  /// Runs layers [window.begin, window.end) on batch.rows; needs `below_window` of every row in the cache.
  WindowPass(const Transformer& model, const StepBatch& batch, const ReferenceCache& reference,
             LayerWindow window);

  /// h: the window's output at the role's represented tokens: [tokens, hidden]. Undefined when the role has
  /// no such token here.
  at::Tensor output(RowRole role) const;
  /// h0: what the frozen model had there, from the cache: [tokens, hidden].
  at::Tensor reference_output(RowRole role, const ReferenceCache& reference) const;

 private:
  LayerWindow window_;
  RaggedBatch batch_;
  struct Part {
    int64_t row, first;  // in the batch; its first represented token
  };
  std::map<RowRole, std::vector<Part>> rows_;  // of each role
  at::Tensor output_;                          // [tokens, hidden]
};

/// What a row must have in the cache for a window pass; `representation` where h0 is asked for.
ReferenceNeeds window_needs(LayerWindow window, bool representation);

/// The window's layers in fp32 from now on; an fp64 model stays as it is.
void compute_window_in_fp32(Transformer& model, LayerWindow window);

/// RMU's retain term, MSE(h, h0) over the hidden size: [tokens].
at::Tensor representation_error(const at::Tensor& h, const at::Tensor& h0);

}  // namespace efface
