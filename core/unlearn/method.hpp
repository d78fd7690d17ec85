// What an unlearning method is: a loss on a step's rows. The loop, the optimiser, the projection, the
// sharding and the caches are the trainer's; a method is one file and one line in methods() of registry.cpp.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"
#include "core/unlearn/references.hpp"

namespace efface {

/// What a row is for; each method reads some of them.
enum class RowRole {
  forget,  ///< question + undesired answer: GA, NPO, ... and NSRU's suppression; KUDA's and RMU's forget text
  safe,    ///< forget question + its specified safe response
  retain,  ///< retain rows by next-token NLL on labels (FineTune's rows too); KUDA's and RMU's retain text
  retain_kl,  ///< retain rows by KL to the frozen model on labels
};
std::string role_name(RowRole role);  ///< "forget", "safe", "retain", "retain_kl"

struct TrainingRow {
  TokenRow tokens;
  RowRole role = RowRole::forget;
  /// Weight of the first label against the others' 1 in the row's mean (the first token decides whether a
  /// model refuses). 1: a plain mean.
  double first_label_weight = 1;
  /// The first token whose representation KUDA and RMU turn or keep, at least 1: position 0 is the attention
  /// sink.
  int64_t first_represented = 1;
  /// The answer to the same question that the one in `tokens` is preferred to, in pools of a method that
  /// reads pairs. It is scored beside its row: on the same rank, in the same pass.
  std::optional<TokenRow> rejected = std::nullopt;

  /// Tokens that go through the model, both answers'.
  int64_t tokens_in_pass() const {
    return static_cast<int64_t>(tokens.ids.size() + (rejected ? rejected->ids.size() : 0));
  }
  int64_t represented_tokens() const {
    return std::max<int64_t>(0, static_cast<int64_t>(tokens.ids.size()) - first_represented);
  }
};

/// The rows to draw from, by role; groups[role][i] are alternatives of one record (its wordings): a step
/// draws records without repetition within an epoch, then one wording of each.
struct TrainingPool {
  std::map<RowRole, std::vector<std::vector<TrainingRow>>> groups;
};

/// Rows of one step on this data rank: its part of the global batch, or one micro-batch of that part. Counts
/// are global (all data ranks, all micro-batches), so that losses and gradients are summed, never averaged.
/// A pair is one row, and its rejected answer is not among its labels and tokens.
struct StepBatch {
  std::vector<TrainingRow> rows;
  std::map<RowRole, int64_t> global_rows;    ///< rows of each role in the global batch
  std::map<RowRole, int64_t> global_labels;  ///< labels of each role in the global batch
  std::map<RowRole, int64_t> global_tokens;  ///< represented tokens of each role
  int64_t step = 0;
};

struct LossParts {
  at::Tensor total;  ///< scalar; this rank's share of the global loss (summed, not averaged)
  std::map<std::string, double>
      parts;  ///< "safe", "suppression", "retain", ...: this rank's share, unweighted
};

/// Named numbers and named texts of the recipe's method_args.
using MethodArgs = std::map<std::string, double>;
using MethodChoices = std::map<std::string, std::string>;

/// Layers [begin, end): what KUDA and RMU run and train.
struct LayerWindow {
  int begin = 0, end = 0;
};

/// Which parameters a method trains by default.
enum class TrainedParameters {
  lora,              ///< adapters on lora.target_modules of all layers
  down_proj_window,  ///< the down_proj matrices of the window
  full,              ///< the seven matrices of every layer
};

class Method {
 public:
  virtual ~Method() = default;
  virtual std::string name() const = 0;
  virtual TrainedParameters trains() const = 0;
  /// Which roles a step must have; a role that no switched-on loss reads is not among them.
  virtual std::vector<RowRole> roles() const = 0;
  /// Whether its safe rows are pairs: each with the undesired answer to the same question as `rejected`.
  virtual bool reads_pairs() const { return false; }
  /// What the frozen model must have said about a role's rows before the first step.
  virtual std::map<RowRole, ReferenceNeeds> needs() const { return {}; }
  /// The names under which loss() reports its parts; one that has no rows in a batch may be left out there.
  virtual std::vector<std::string> parts() const = 0;
  /// What the method asks of the model before references are made (KUDA: the window in fp32). May be
  /// repeated.
  virtual void prepare(Transformer& model) const {}
  /// Never called with no rows. Runs collectives of the tensor group only.
  virtual LossParts loss(const Transformer& model, const StepBatch& batch,
                         const ReferenceCache& reference) const = 0;
};

struct MethodDescription {
  std::string name;                                    ///< "NSRU"
  std::string summary;                                 ///< one line
  std::map<std::string, double> defaults;              ///< every numeric method_args key with its default
  std::map<std::string, std::string> help;             ///< key -> one line, numeric and textual keys
  std::map<std::string, std::string> choices_default;  ///< textual args: "suppression" -> "npo"
  std::map<std::string, std::vector<std::string>> choices;  ///< allowed values of textual args
  bool needs_window = false;                                ///< KUDA, RMU: a LayerWindow must be given
  /// Given every key of `defaults` and `choices_default`; call make_method() instead.
  std::function<std::unique_ptr<Method>(const MethodArgs&, const MethodChoices&, LayerWindow)> make;
};

/// Every method there is: NSRU, KUDA, GradAscent, GradDiff, NPO, SimNPO, IdkDPO, RMU, FineTune.
const std::vector<MethodDescription>& methods();
/// Throws Error(recipe) with the nearest right name.
const MethodDescription& find_method(const std::string& name);
/// The method with the arguments given, defaults for the rest. Throws Error(recipe) for an unknown key or
/// choice (with the nearest right name) and for a window that is empty where the method needs one.
std::unique_ptr<Method> make_method(const std::string& name, const MethodArgs& args = {},
                                    const MethodChoices& choices = {}, LayerWindow window = {});

}  // namespace efface
