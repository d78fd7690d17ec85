// The loop of the stages that train: steps, metrics, checkpoints, and the end when the run is asked to stop.
#pragma once

#include "core/unlearn/trainer.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {

struct TrainingHistory {
  nlohmann::json steps;    ///< one entry a step, from the first on, as in metrics.jsonl
  int64_t resumed_at = 0;  ///< steps that an earlier run had done
};

/// Trains up to `steps` steps, from the stage folder's newest whole checkpoint where there is one; saves
/// every train.checkpoint_every steps or train.checkpoint_minutes, beside the training, and after the last.
/// Throws Error(interrupted), with all saved, when the run is asked to stop. Collective.
TrainingHistory run_training_loop(Workspace& work, Trainer& trainer, const std::string& stage, int64_t steps);

}  // namespace efface
