// What an unlearning method is: a loss on a step's rows. The loop, the optimiser, the projection, the sharding
// and the caches are the trainer's; a method is one file and one line in methods() of registry.cpp.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"

namespace efface {

/// What a row is for; each method reads some of them.
enum class RowRole {
  forget,       ///< question + undesired answer: GA, NPO, ... and NSRU's suppression
  safe,         ///< forget question + its specified safe response
  retain,       ///< retain rows by next-token NLL on labels
  retain_kl,    ///< retain rows by KL to the frozen model on labels
};

struct TrainingRow {
  TokenRow tokens;
  RowRole role = RowRole::forget;
  /// Weight of the first label against the others' 1 in the row's mean (the first token decides whether a model
  /// refuses). 1: a plain mean.
  double first_label_weight = 1;
};

/// One step on this data rank: some rows of the global batch. Counts are global (all data ranks, micro-batches).
struct StepBatch {
  std::vector<TrainingRow> rows;
  std::map<RowRole, int64_t> global_rows;    ///< rows of each role in the global batch
  std::map<RowRole, int64_t> global_labels;  ///< labels of each role in the global batch
  std::map<RowRole, int64_t> global_tokens;  ///< tokens of each role, position 0 not counted
  int64_t step = 0;
};

/// Frozen-model values of a row, computed once and kept (HDF5), looked up by row id.
class ReferenceCache;

struct LossParts {
  at::Tensor total;                     ///< scalar; this rank's share of the global loss (summed, not averaged)
  std::map<std::string, double> parts;  ///< "safe", "suppression", "retain", ...: this rank's share
};

/// Named numbers of the recipe's method_args, with what was not used reported as an error.
using MethodArgs = std::map<std::string, double>;

/// Which parameters a method trains by default.
enum class TrainedParameters { lora, down_proj_window, full };

class Method {
 public:
  virtual ~Method() = default;
  virtual std::string name() const = 0;
  virtual TrainedParameters trains() const = 0;
  /// Which roles a step must have, in the share of the batch the recipe gives.
  virtual std::vector<RowRole> roles() const = 0;
  /// What must be in the reference cache before a row of a role is used; see references.hpp.
  virtual LossParts loss(const Transformer& model, const StepBatch& batch, const ReferenceCache& reference) const = 0;
};

struct MethodDescription {
  std::string name;                          ///< "NSRU"
  std::string summary;                       ///< one line
  std::map<std::string, double> defaults;    ///< every method_args key with its default
  std::map<std::string, std::string> help;   ///< key -> one line
  std::map<std::string, std::string> choices_default;          ///< textual args: "suppression" -> "npo"
  std::map<std::string, std::vector<std::string>> choices;     ///< allowed values of textual args
  std::function<std::unique_ptr<Method>(const MethodArgs&, const std::map<std::string, std::string>&)> make;
};

/// Every method there is: NSRU, KUDA, GradAscent, GradDiff, NPO, SimNPO, RMU, FineTune.
const std::vector<MethodDescription>& methods();
/// Throws Error(recipe) with the nearest right name.
const MethodDescription& find_method(const std::string& name);

}  // namespace efface
