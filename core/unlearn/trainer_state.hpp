// What a Trainer holds, shared by trainer.cpp (the loop) and trainer_results.cpp (what comes out and goes to
// disk).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/unlearn/adamw.hpp"
#include "core/unlearn/data_order.hpp"
#include "core/unlearn/parameters.hpp"
#include "core/unlearn/trainer.hpp"
#include "core/unlearn/training_state.hpp"

namespace efface {

struct Trainer::State {
  Transformer model;
  const Method& method;
  TrainingPool pool;
  ReferenceCache references;
  TrainOptions options;
  LoraOptions lora;
  std::vector<ModuleId> trained;
  TrainedParameters kind;
  std::unique_ptr<Parameters> parameters;
  std::optional<Adam> adam;
  at::Tensor gradient;  // of the last step, laid out like the parameters
  int64_t steps_done = 0, steps_skipped = 0, skipped_in_a_row = 0;

  std::vector<StateVector> vectors() const;

  const Mesh& mesh() const { return model.mesh(); }
  std::vector<TrainingRow> rows_of(int64_t step) const {
    return global_batch(pool, options.rows_per_step, options.seed, step);
  }
  StepBatch batch_of_rank(const std::vector<TrainingRow>& global, int64_t step, int data_rank) const;
  void check_pool() const;

  /// Sums over the job of what one step's passes gave.
  struct PassSums {
    double loss = 0;
    std::map<std::string, double> parts;
    std::string not_finite;  ///< what is NaN or Inf, and in which rows; empty: nothing
  };
  PassSums run_passes(const std::vector<TrainingRow>& global);
  std::string not_finite_text(const std::vector<TrainingRow>& global, const char* what,
                              const at::Tensor& failed_ranks) const;
};

}  // namespace efface
