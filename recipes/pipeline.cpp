#include "recipes/pipeline.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <ctime>
#include <set>

#include "distributed/activity.hpp"
#include "distributed/error.hpp"
#include "distributed/threads.hpp"
#include "recipes/preflight.hpp"
#include "recipes/report/report.hpp"
#include "recipes/stages/workspace.hpp"
#include "recipes/stop_signal.hpp"

namespace efface {
namespace {

std::vector<Stage> stages() {
  return {finetune_stage(), trace_stage(),   before_stage(),     covariance_stage(), nullspace_stage(),
          answers_stage(),  unlearn_stage(), constraint_stage(), evaluate_stage(),   export_stage()};
}

Stage stage_named(const std::string& name) {
  for (auto& stage : stages())
    if (stage.name == name) return stage;
  throw Error(ErrorClass::usage, "there is no stage '" + name + "'");
}

/// The stages of this run, in their order.
std::vector<Stage> wanted_stages(const Workspace& work, const std::string& until) {
  std::vector<Stage> wanted;
  for (const auto& stage : stages()) {
    if (stage.wanted(work)) wanted.push_back(stage);
    if (stage.name == until) break;
  }
  return wanted;
}

/// The names of all that a stage reads, and of what those read.
std::set<std::string> all_it_reads(const Workspace& work, const Stage& stage) {
  std::set<std::string> all;
  for (const auto& name : stage.reads(work)) {
    all.insert(name);
    all.merge(all_it_reads(work, stage_named(name)));
  }
  return all;
}

/// What the result of a stage depends on: itself, and all that it reads, each once.
nlohmann::json key_of(const Workspace& work, const Stage& stage) {
  const auto part = [&](const Stage& one) {
    return nlohmann::json{{"version", one.version}, {"settings", one.settings(work)}};
  };
  nlohmann::json key = part(stage);
  for (const auto& name : all_it_reads(work, stage)) key["reads"][name] = part(stage_named(name));
  return key;
}

/// Forgets the results of the stages that are to be done again, and of all that read them: now, so that a run
/// that is stopped before it comes to them does not take up what they were.
void clear_for_redo(const Workspace& work, const std::vector<std::string>& redo) {
  for (const auto& stage : stages()) {
    auto names = all_it_reads(work, stage);
    names.insert(stage.name);
    if (std::any_of(redo.begin(), redo.end(), [&](const auto& name) { return names.count(name) > 0; }))
      work.run.clear(stage.name);
  }
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

/// A stage that was begun for another key leaves nothing behind; one begun for this key may go on.
void prepare_folder(Workspace& work, const Stage& stage, const nlohmann::json& key) {
  const auto file = work.run.stage_folder(stage.name) / "started.json";
  std::string begun;
  if (work.mesh.is_root() && std::filesystem::exists(file)) begun = read_text_file(file);
  begun = work.mesh.world.broadcast(begun, 0);
  if (begun == key.dump()) return;
  work.run.clear(stage.name);
  if (work.mesh.is_root()) write_text_file(work.run.stage_folder(stage.name) / "started.json", key.dump());
  work.mesh.world.barrier();
}

void write_manifest(const Workspace& work, const std::vector<Stage>& wanted, const PipelineOptions& options) {
  if (!work.mesh.is_root()) return;
  std::vector<std::string> names;
  for (const auto& stage : wanted) names.push_back(stage.name);
  const Recipe& recipe = work.recipe;
  const nlohmann::json manifest = {
      {"version", EFFACE_VERSION},         {"started", now_text()},
      {"command", options.command},        {"recipe", recipe.file.filename().string()},
      {"method", recipe.method},           {"model", recipe.model.path.filename().string()},
      {"dtype", recipe.model.dtype},       {"ranks", work.mesh.world.size()},
      {"tensor", work.mesh.tensor_size()}, {"data", work.mesh.data_size()},
      {"threads", at::get_num_threads()},  {"seed", recipe.train.seed},
      {"layers", work.config().layers},    {"hidden_size", work.config().hidden_size},
      {"projected", work.projects()},      {"stages", names}};
  write_text_file(work.run.path() / "run.json", manifest.dump(2) + "\n");
  write_text_file(work.run.path() / "recipe.yaml", effective_recipe(recipe));
}

/// What training saved and what checks itself stays: only the damaged files of it are computed again.
void forget_damaged(const Workspace& work, const Stage& stage,
                    const std::map<std::string, std::string>& damaged) {
  if (work.mesh.is_root())
    for (const auto& [file, what] : damaged) {
      std::error_code ignored;
      std::filesystem::remove(work.run.stage_folder(stage.name) / file, ignored);
    }
  work.run.clear(stage.name, {"started.json", "checkpoint", "references"});
}

void run_stage(Workspace& work, const Stage& stage) {
  const nlohmann::json key = key_of(work, stage);
  work.progress.begin(stage.name, stage.name == "unlearn" || stage.name == "finetune" ? "steps"
                                  : stage.name == "covariance"                        ? "tokens"
                                                                                      : "parts");
  std::string stale = work.mesh.is_root() ? work.run.why_stale(stage.name, key) : "";
  if (work.run.is_done(stage.name, key)) {
    const auto damaged = work.run.damaged(stage.name);
    if (damaged.empty()) {
      work.progress.end("done before: " + stage.line(work.run.summary(stage.name)));
      return;
    }
    for (const auto& [file, what] : damaged)
      stale += (stale.empty() ? "" : "; ") + (work.run.stage_folder(stage.name) / file).string() + " " + what;
    forget_damaged(work, stage, damaged);
  }
  if (!stale.empty() && stale != "never run") work.progress.note("again, for " + stale);
  prepare_folder(work, stage, key);
  nlohmann::json summary = stage.run(work);
  summary["seconds"] = work.progress.seconds();
  work.run.mark_done(stage.name, key, summary);
  work.mesh.world.barrier();
  work.progress.end(stage.line(summary) + " (" + duration_text(work.progress.seconds()) + ")");
}

Mesh mesh_of(const Recipe& recipe, const Communicator& world) {
  const ThreadChoice threads = set_threads(world);
  if (recipe.parallel.threads > 0) at::set_num_threads(static_cast<int>(recipe.parallel.threads));
  if (world.rank() == 0 && !threads.warning.empty())
    std::fprintf(stderr, "efface: warning: %s\n", threads.warning.c_str());
  return make_mesh(world, static_cast<int>(recipe.parallel.tensor), static_cast<int>(recipe.parallel.data),
                   recipe.parallel.device == "cuda" ? at::kCUDA : at::kCPU);
}

}  // namespace

std::vector<std::string> stage_names() {
  std::vector<std::string> names;
  for (const auto& stage : stages()) names.push_back(stage.name);
  return names;
}

void run_pipeline(const Recipe& recipe, const Communicator& world, const PipelineOptions& options) {
  catch_stop_signals();
  const Mesh mesh = mesh_of(recipe, world);
  RunDirectory run(recipe.output.folder, world);
  ProgressLine progress(world.rank() == 0);
  allow_silence(recipe.parallel.timeout);
  for (const auto& problem : run.problems()) progress.say(problem);
  Workspace work(recipe, mesh, run, progress);
  for (const auto& warning : check_before_work(recipe, work.config(), work.rows(), work.data))
    if (world.rank() == 0) std::fprintf(stderr, "efface: warning: %s\n", warning.c_str());
  const auto wanted = wanted_stages(work, options.until);
  write_manifest(work, wanted, options);
  clear_for_redo(work, options.redo);
  for (const auto& stage : wanted) {
    run_stage(work, stage);
    if (stage.name == "finetune") work.use_model_folder(run.stage_folder("finetune") / "model");
    if (stop_was_asked(world))
      throw Error(ErrorClass::interrupted, "stopped after stage " + stage.name,
                  "the same command goes on from there");
  }
  if (!options.until.empty()) return;
  progress.begin("report", "parts");
  if (world.rank() == 0) write_report(run.path());
  world.barrier();  // for every rank the run has ended when all of it is there
  progress.end((run.path() / "report.html").string());
  if (recipe.evaluate.after)
    progress.say(std::string(1, '\n') +
                 before_after_table(recipe.evaluate.before ? run.summary("before") : nlohmann::json(),
                                    run.summary("evaluate")));
  progress.say("Results are in " + run.path().string() + "; open report.html there first.");
}

}  // namespace efface
