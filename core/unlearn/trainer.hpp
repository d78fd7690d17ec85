// The training loop any method goes through:
//   rows of the step (by seed and step alone) -> Method::loss -> backward -> one flat sum over data ranks
//   -> AdamW -> the projection, after the optimiser -> checkpoint.
// LoRA: A~ = A P is formed once a step. Full matrices: gradients are reduce-scattered over data ranks by
// output rows, AdamW and the projection of the step's increment run on those rows, weights are all-gathered.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/subspace/projector.hpp"
#include "core/unlearn/method.hpp"
#include "core/unlearn/references.hpp"

namespace efface {

struct LoraOptions {
  int64_t r = 16;
  double lora_alpha = 32;
  std::vector<Projection> target_modules = {Projection::q,    Projection::k,  Projection::v,   Projection::o,
                                            Projection::gate, Projection::up, Projection::down};
};

struct TrainingSnapshot;

/// Where the projection acts. `gradient` is the trap of docs/methods.md, kept as an ablation.
enum class ProjectionPoint { none, update, gradient };

struct TrainOptions {
  int64_t steps = 34;
  std::map<RowRole, int64_t> rows_per_step;  ///< global, per role
  double learning_rate = 1e-3;
  int64_t warmup_steps = 5;
  double decay_fraction = 0.3;  ///< linear decay to 0 over the last part of the steps
  double weight_decay = 0;      ///< acts on dW, before the projection
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double max_grad_norm = 0;  ///< 0: no clipping
  uint64_t seed = 0;
  ProjectionPoint projection = ProjectionPoint::update;
  double initial_noise = 0;         ///< KUDA: seeded noise of this times ||W0||, projected, before step 0
  int64_t max_tokens_per_pass = 0;  ///< micro-batches of at most this many tokens a rank; 0: all at once
  /// Adapters or matrices; by default as the method says.
  std::optional<TrainedParameters> parameters;
  /// Replicated parameters are compared bit by bit over the ranks after the first step, every so many steps,
  /// and after the last; 0: never.
  int64_t replica_check_every = 100;
  /// A step whose loss or gradient is NaN or Inf changes nothing and is counted; otherwise it is an error.
  bool skip_nonfinite = false;
};

struct StepReport {
  int64_t step = 0;
  double loss = 0;                      ///< global
  std::map<std::string, double> parts;  ///< global, unweighted
  double grad_norm = 0;                 ///< every global element counted once; before clipping
  double learning_rate = 0;
  int64_t tokens = 0;  ///< global
  double seconds = 0;
  std::string skipped;  ///< why the step changed nothing, with its rows; empty when it did
};

class Trainer {
 public:
  /// Projectors by input; a missing one is the identity. The model gets its adapters, or trainable weights,
  /// here. The method must outlive the trainer. Throws Error(data) when the pool lacks a role the method
  /// reads. Collective.
  Trainer(Transformer& model, const Method& method, TrainingPool pool, ReferenceCache references,
          std::map<InputId, Projector> projectors, TrainOptions options, LoraOptions lora,
          std::vector<ModuleId> trained);
  ~Trainer();
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;

  /// The rows of a step on this data rank: (seed, step) decide, whatever the mesh.
  StepBatch batch(int64_t step) const;
  /// One step. Where the loss or a gradient is NaN or Inf the parameters stay as before the step; unless such
  /// steps are skipped, and after ten in a row, it throws Error(numeric) with the rows' ids on every rank.
  /// Collective.
  StepReport step();
  int64_t steps_done() const;
  int64_t steps_skipped() const;

  /// Training state for a CheckpointWriter: parameters, moments, step.
  TrainingSnapshot snapshot() const;
  /// Writes it and waits. Collective.
  void save(const std::filesystem::path& folder) const;
  struct Restored {
    bool found = false;
    nlohmann::json description;        ///< of the snapshot
    std::vector<std::string> damaged;  ///< newer checkpoints that were removed, and why
    explicit operator bool() const { return found; }
  };
  /// Goes on from the newest whole checkpoint in the folder, whatever mesh wrote it; Error(storage) when it
  /// belongs to another method or other modules. Collective.
  Restored restore(const std::filesystem::path& folder);

  /// LoRA: the adapters as they act, A~ and B, global, on every rank: ([r, in], [out, r]). Collective.
  std::map<ModuleId, std::pair<at::Tensor, at::Tensor>> global_adapters() const;
  /// dW of one trained module, global [out, in], fp32 (fp64 for an fp64 model), whatever the parametrisation.
  /// Collective.
  at::Tensor global_update(const ModuleId& module) const;
  /// The last step's gradients before clipping, global, on every rank: "<module>.lora_a", "<module>.lora_b",
  /// or
  /// "<module>.update". Collective.
  std::map<std::string, at::Tensor> global_gradients() const;
  const std::vector<ModuleId>& trained() const;
  double lora_scale() const;

  /// Replaces modules' parameters by given ones, global, the same on every rank. LoRA: A (before the
  /// projection) [r, in] and B [out, r]; matrices: dW [out, in], taken as it is, not projected. Collective.
  void set_adapters(const std::map<ModuleId, std::pair<at::Tensor, at::Tensor>>& adapters);
  void set_updates(const std::map<ModuleId, at::Tensor>& updates);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace efface
