#include "recipes/stages/training_loop.hpp"

#include <chrono>

#include "core/unlearn/training_state.hpp"
#include "distributed/error.hpp"
#include "recipes/stop_signal.hpp"

namespace efface {
namespace {

using Clock = std::chrono::steady_clock;

nlohmann::json metric(const std::string& stage, const StepReport& report) {
  nlohmann::json line = {
      {"stage", stage},          {"step", report.step},           {"loss", report.loss},
      {"parts", report.parts},   {"grad_norm", report.grad_norm}, {"learning_rate", report.learning_rate},
      {"tokens", report.tokens}, {"seconds", report.seconds}};
  if (!report.skipped.empty()) line["skipped"] = report.skipped;
  return line;
}

/// What the ranks tell each other after a step.
struct Agreed {
  bool stop, time_is_up, written;
};

Agreed agree(const Communicator& world, bool time_is_up, bool written) {
  const auto flags = at::tensor({int64_t{stop_was_noted()}, int64_t{time_is_up}, int64_t{!written}});
  world.all_reduce(flags, Reduction::max);
  return {flags[0].item<int64_t>() != 0, flags[1].item<int64_t>() != 0, flags[2].item<int64_t>() == 0};
}

TrainingSnapshot snapshot_of(const Trainer& trainer, const TrainingHistory& history) {
  TrainingSnapshot snapshot = trainer.snapshot();
  snapshot.description["history"] = history.steps;
  return snapshot;
}

TrainingHistory restored(Workspace& work, Trainer& trainer, const std::filesystem::path& folder) {
  TrainingHistory history;
  const auto state = trainer.restore(folder);
  for (const auto& problem : state.damaged) work.progress.note("not used: " + problem);
  if (!state) return history;
  history.resumed_at = trainer.steps_done();
  history.steps = state.description.at("history");
  work.progress.note("goes on after step " + std::to_string(history.resumed_at));
  return history;
}

}  // namespace

TrainingHistory run_training_loop(Workspace& work, Trainer& trainer, const std::string& stage,
                                  int64_t steps) {
  const TrainSection& train = work.recipe.train;
  const auto folder = work.run.stage_folder(stage) / "checkpoint";
  TrainingHistory history = restored(work, trainer, folder);
  CheckpointWriter writer(folder, work.mesh, train.checkpoints_kept);
  const auto save_and_wait = [&] {
    writer.publish();
    writer.begin(snapshot_of(trainer, history));
    writer.publish();
  };
  auto saved = Clock::now();
  while (trainer.steps_done() < steps) {
    const StepReport report = trainer.step();
    history.steps.push_back(metric(stage, report));
    work.run.append_metric(history.steps.back());
    if (!report.skipped.empty())
      work.progress.note("step " + std::to_string(report.step) + " is skipped: " + report.skipped);
    work.progress.update(trainer.steps_done(), steps, "loss " + number_text(report.loss));

    const std::chrono::duration<double, std::ratio<60>> minutes = Clock::now() - saved;
    const Agreed agreed =
        agree(work.mesh.world, train.checkpoint_minutes > 0 && minutes.count() >= train.checkpoint_minutes,
              writer.written());
    if (writer.pending() && agreed.written) writer.publish();
    if (agreed.stop) {
      save_and_wait();
      throw Error(ErrorClass::interrupted,
                  "stopped after step " + std::to_string(trainer.steps_done()) + " of " +
                      std::to_string(steps) + " of " + stage,
                  "the same command goes on from there");
    }
    const bool due = train.checkpoint_every > 0 && trainer.steps_done() % train.checkpoint_every == 0;
    // While one is still being written the next waits, and not the training.
    if ((due || agreed.time_is_up) && !writer.pending()) {
      writer.begin(snapshot_of(trainer, history));
      saved = Clock::now();
    }
  }
  if (history.resumed_at < steps) save_and_wait();
  return history;
}

}  // namespace efface
