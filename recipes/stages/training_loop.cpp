#include "recipes/stages/training_loop.hpp"

#include "distributed/error.hpp"
#include "recipes/stop_signal.hpp"

namespace efface {
namespace {

nlohmann::json metric(const std::string& stage, const StepReport& report) {
  return {{"stage", stage},          {"step", report.step},           {"loss", report.loss},
          {"parts", report.parts},   {"grad_norm", report.grad_norm}, {"learning_rate", report.learning_rate},
          {"tokens", report.tokens}, {"seconds", report.seconds}};
}

/// Step reports up to the checkpoint that was restored.
nlohmann::json earlier_steps(const std::filesystem::path& file, int64_t steps_done) {
  nlohmann::json kept = nlohmann::json::array();
  if (steps_done == 0 || !std::filesystem::exists(file)) return kept;
  for (auto& step : nlohmann::json::parse(read_text_file(file)))
    if (step.at("step").get<int64_t>() < steps_done) kept.push_back(std::move(step));
  return kept;
}

}  // namespace

TrainingHistory run_training_loop(Workspace& work, Trainer& trainer, const std::string& stage,
                                  int64_t steps) {
  const auto folder = work.run.stage_folder(stage);
  const auto checkpoint = folder / "checkpoint", reports = folder / "steps.json";
  TrainingHistory history;
  if (trainer.restore(checkpoint)) {
    history.resumed_at = trainer.steps_done();
    work.progress.note("goes on after step " + std::to_string(history.resumed_at));
  }
  history.steps = earlier_steps(reports, history.resumed_at);
  const int64_t every = work.recipe.train.checkpoint_every;
  while (trainer.steps_done() < steps) {
    const StepReport report = trainer.step();
    history.steps.push_back(metric(stage, report));
    work.run.append_metric(history.steps.back());
    work.progress.update(trainer.steps_done(), steps, "loss " + number_text(report.loss));
    const bool asked_to_stop = stop_was_asked(work.mesh.world);
    const bool due = every > 0 && trainer.steps_done() % every == 0;
    if (due || asked_to_stop || trainer.steps_done() == steps) {
      // First: reports of steps that a checkpoint does not count are dropped, missing ones are lost.
      if (work.mesh.is_root()) write_text_file(reports, history.steps.dump() + "\n");
      trainer.save(checkpoint);
    }
    if (asked_to_stop)
      throw Error(ErrorClass::interrupted,
                  "stopped after step " + std::to_string(trainer.steps_done()) + " of " +
                      std::to_string(steps) + " of " + stage,
                  "the same command goes on from there");
  }
  return history;
}

}  // namespace efface
