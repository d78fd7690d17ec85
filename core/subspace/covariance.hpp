// The second moment C = (1/N) sum x x^T of every wanted linear input over the retain tokens, from one forward
// pass; with it what is needed to judge it: a held-out second moment, trace shares, the mean sink input.
//
// Rank r of the tensor group stores block rows r, fp64. Replicated inputs (qkv, gate_up) need no
// communication; sharded ones (o, down) are all-gathered over the tensor group a batch at a time. Each
// unordered pair of blocks is computed once (second_moment.hpp) and mirrored in finish(). Inputs go to fp32,
// or stay bf16 where the processor multiplies bf16 into fp32; products are fp32, sums of products fp64.
//
// Memory beside the fp64 matrices, a rank: three buffers of 2,048 tokens of the widest input, up to 1,024
// waiting tokens of each input (none where batches are that long), and, until the cap is fixed, the tokens of
// capped inputs (cap_sample of them, rounded up to a pass).
//
// Passes. Every data rank calls taps() and runs the forward pass the same number of times, with the same
// `heldout`, with an empty batch where it has no rows. Global order, which only the cap's sample depends on:
// pass by pass, and inside a pass rows are dealt round-robin: row j of data rank d is row j * data_size + d.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "core/model/module.hpp"
#include "core/model/tensors.hpp"
#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"
#include "distributed/block_rows.hpp"

namespace efface {

class StoreFile;  // store_manifest.hpp
class StoreFileWriter;

struct CovarianceOptions {
  bool skip_sinks = true;  ///< leave position 0 of each row out; its mean is kept as `sink_mean`
  double norm_cap = 0;     ///< > 0: tokens longer than norm_cap x median are scaled down to it
  std::vector<Input> capped = {Input::down};  ///< inputs the cap applies to
  int64_t cap_sample = 4096;  ///< the median is over this many first counted tokens, in global order

  bool caps(Input input) const {
    return norm_cap > 0 && std::find(capped.begin(), capped.end(), input) != capped.end();
  }
};

/// One input's result. Matrices are global sums over data ranks, block rows over the tensor group, fp64; the
/// rest is the same on every rank.
struct Covariance {
  InputId id;
  int64_t tokens = 0;  ///< counted tokens, all data ranks
  int64_t heldout_tokens = 0;
  BlockRows matrix;            ///< sum x x^T / tokens
  BlockRows heldout;           ///< the same of held-out tokens (uncapped); n = 0 where there are none
  at::Tensor sink_mean;        ///< [n] fp64, mean input at the left-out position 0; undefined when counted
  double norm_cap = 0;         ///< the norm tokens were capped to; 0: not capped
  double top_token_share = 0;  ///< share of the (uncapped) trace held by the largest token
};

class CovarianceAccumulator {
 public:
  CovarianceAccumulator(const ModelConfig& config, const Mesh& mesh, std::vector<InputId> inputs,
                        CovarianceOptions options = {});
  /// Taps to pass to the forward pass of `batch`. heldout: into the second matrix (sinks left out alike,
  /// never capped). Valid until the next call. Collective over data ranks.
  const Taps& taps(const RaggedBatch& batch, bool heldout = false);
  /// The last layer anything is wanted of: the forward may stop after it.
  int last_layer() const;
  /// Reduces over data ranks, mirrors, divides; in the order of InputId. Collective over the mesh. The
  /// accumulator is empty after. Throws Error(data) when no token was counted.
  std::vector<Covariance> finish();
  /// finish() one by one: each is handed to `take` and freed before the next. Collective over the mesh.
  void finish_each(const std::function<void(Covariance&)>& take);

  /// Is every cap fixed? Before, there is nothing to save. The same on every rank.
  bool can_save() const;
  /// This rank's part, neither reduced nor mirrored, to the bit; a restored accumulator of the same inputs,
  /// options and mesh goes on as the saved one would have. Not collective. Throws Error(storage).
  void save(StoreFileWriter& file) const;
  void restore(const StoreFile& file);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace efface
