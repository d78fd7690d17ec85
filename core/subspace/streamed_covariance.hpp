// Covariances of more layers than memory holds at once, each layer still computed once: layers are taken in
// groups that fit a budget, and the hidden states between two groups wait on disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "core/subspace/covariance.hpp"

namespace efface {

/// The rows of this data rank in one pass; the passes of all data ranks are the same in number and kind.
struct RetainPass {
  std::vector<TokenRow> rows;
  bool heldout = false;
};

/// An order, the same on every mesh, in which rows dealt round-robin give data ranks about the same number of
/// tokens: documents cut into windows end in short ones, and the rows as they come can give one rank the long
/// and another the short. In blocks of a few dozen rows, by length, down in one and up in the next. The first
/// rows keep their places until they hold `kept` tokens beside their first positions: the norm cap's sample.
std::vector<TokenRow> evenly_dealt(std::vector<TokenRow> rows, int64_t kept);

/// What a rank needs while it accumulates, beside the model and its activations.
struct CovarianceMemory {
  int64_t shared = 0;                              ///< bytes, whatever the group: scratch, the widest copies
  std::vector<std::pair<int, int64_t>> of_layers;  ///< layer -> bytes of its wanted inputs, ascending
  int64_t all() const;                             ///< bytes with every layer at once
};
/// `inputs` sorted; largest_pass: most tokens of a pass on one data rank. The largest share of any tensor
/// rank.
CovarianceMemory covariance_memory(const ModelConfig& config, const Mesh& mesh,
                                   const std::vector<InputId>& inputs, const CovarianceOptions& options,
                                   bool heldout, int64_t largest_pass, at::ScalarType dtype);

/// Consecutive layers with those of their inputs that are in `inputs`, as few groups as a first fit makes,
/// each within `budget` bytes a rank. Throws Error(recipe) when one layer alone is more, with the bytes that
/// would do.
std::vector<std::vector<InputId>> groups_within(const CovarianceMemory& memory,
                                                const std::vector<InputId>& inputs, int64_t budget);

/// What stream_covariances() tells its caller, on every rank alike.
struct StreamHooks {
  std::function<void(Covariance&)> take;       ///< each input's, in the order of InputId, group by group
  std::function<void()> group_done;            ///< makes safe what was taken since the last call; collective
  std::function<void(int64_t done)> progress;  ///< tokens x layers of this data rank, of stream_work() in all
  std::function<bool()> save_due;              ///< asked after each pass: save what there is? collective
  std::function<void()> saved;                 ///< after such a save; may throw to end the stream
  std::function<void(const std::string&)> note;  ///< something an earlier run left is damaged, and not used
};

/// Runs `passes` through each group's layers; the same bits whatever the groups. With more than one group, or
/// once something was saved, `folder` holds a StreamCheckpoint, and is gone after. A run that was ended goes
/// on from it, given the groups of what had not been taken and made safe; on another mesh from the
/// embeddings. Collective over the mesh.
void stream_covariances(const Transformer& model, const std::vector<std::vector<InputId>>& groups,
                        const std::vector<RetainPass>& passes, const CovarianceOptions& options,
                        const std::filesystem::path& folder, const StreamHooks& hooks);
int64_t stream_work(const std::vector<std::vector<InputId>>& groups, const std::vector<RetainPass>& passes);

}  // namespace efface
