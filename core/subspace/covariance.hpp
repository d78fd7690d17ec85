// The second moment C = (1/N) sum x x^T of every wanted linear input over the retain tokens, from one forward
// pass; with it what is needed to judge it: a held-out second moment, trace shares, the mean sink input.
//
// Rank r of the tensor group stores block rows r. Replicated inputs (qkv, gate_up) need no communication;
// sharded ones (o, down) are all-gathered over the tensor group a batch at a time. Each unordered pair of
// blocks is computed once (circulant; the opposite pair of an even group halved), diagonal blocks by SYRK;
// mirrored once in finish(). Inputs go to fp32, products by BLAS in fp32, sums over batches in fp64.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <vector>

#include "core/model/module.hpp"
#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"
#include "distributed/block_rows.hpp"

namespace efface {

struct CovarianceOptions {
  bool skip_sinks = true;  ///< leave position 0 of each row out; its mean is kept as `sink_mean`
  double norm_cap = 0;     ///< > 0: tokens longer than norm_cap x median are scaled down to it
  std::vector<Input> capped = {Input::down};  ///< inputs the cap applies to
  int64_t cap_sample = 4096;  ///< the median is over this many first counted tokens, in global order
};

/// One input's result. Matrices are global sums over data ranks, block rows over the tensor group, fp64.
struct Covariance {
  InputId id;
  int64_t tokens = 0;  ///< counted tokens, all data ranks
  int64_t heldout_tokens = 0;
  BlockRows matrix;            ///< sum x x^T / tokens
  BlockRows heldout;           ///< the same of held-out tokens (uncapped); n = 0 where there are none
  at::Tensor sink_mean;        ///< [n] mean input at the left-out position 0; undefined when counted
  double norm_cap = 0;         ///< the norm tokens were capped to; 0: not capped
  double top_token_share = 0;  ///< share of the (uncapped) trace held by the largest token
};

class CovarianceAccumulator {
 public:
  CovarianceAccumulator(const ModelConfig& config, const Mesh& mesh, std::vector<InputId> inputs,
                        CovarianceOptions options = {});
  /// Taps to pass to the forward pass of `batch`. heldout: into the second matrix. Valid until the next call.
  const Taps& taps(const RaggedBatch& batch, bool heldout = false);
  /// The last layer anything is wanted of: the forward may stop after it.
  int last_layer() const;
  /// Mirrors, reduces over data ranks, divides. Collective over the mesh. The accumulator is empty after.
  std::vector<Covariance> finish();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace efface
