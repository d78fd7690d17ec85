// unlearn: the method's training, from its last checkpoint where there is one.
#include "core/storage/hdf5_file.hpp"
#include "core/subspace/subspace_store.hpp"
#include "core/unlearn/trainer.hpp"
#include "distributed/error.hpp"
#include "recipes/stages/model_update.hpp"
#include "recipes/stages/own_answers.hpp"
#include "recipes/stages/training_loop.hpp"

namespace efface {
namespace {

nlohmann::json settings(const Workspace& work) {
  const Recipe& recipe = work.recipe;
  const TrainSection& train = recipe.train;
  const auto method = work.method();
  nlohmann::json rows;
  for (const auto& [role, count] : rows_per_step(recipe, *method)) rows[role_name(role)] = count;
  nlohmann::json modules;
  for (const auto& module : work.trained_modules()) modules.push_back(module_name(module));
  nlohmann::json key = {{"model", work.model_key()},
                        {"point", work.projects() ? recipe.nullspace.point : "none"},
                        {"method", recipe.method},
                        {"method_args", recipe.method_args},
                        {"method_choices", recipe.method_choices},
                        {"modules", modules},
                        {"rows", rows},
                        {"first_token_weight", train.first_token_weight},
                        {"wordings", {train.safe_wordings, train.forget_wordings, train.forget_tokens}},
                        {"text",
                         {file_key(recipe.data.text_retain), train.text_loss, train.text_window,
                          train.rows.count("text") ? train.rows.at("text") : 0}},
                        {"data",
                         {source_key(recipe.data.forget), source_key(recipe.data.retain),
                          source_key(recipe.data.neighbours), source_key(recipe.data.same_relation)}},
                        {"safe_response",
                         {recipe.safe_response.source, recipe.safe_response.text_template,
                          recipe.safe_response.parts, file_key(recipe.safe_response.file)}},
                        {"steps", train.steps},
                        {"learning_rate", train.learning_rate},
                        {"warmup_steps", train.warmup_steps},
                        {"decay", train.decay},
                        {"weight_decay", train.weight_decay},
                        {"max_grad_norm", train.max_grad_norm},
                        {"initial_noise", train.initial_noise},
                        {"seed", train.seed}};
  if (method->trains() == TrainedParameters::lora) key["lora"] = {recipe.lora.r, recipe.lora.lora_alpha};
  return key;
}

std::vector<std::string> reads(const Workspace& work) {
  std::vector<std::string> stages;
  if (work.projects()) stages.emplace_back("nullspace");
  if (needs_own_answers(work.recipe)) stages.emplace_back("answers");
  return stages;
}

TrainOptions train_options(const Workspace& work, const Method& method) {
  const TrainSection& train = work.recipe.train;
  TrainOptions options;
  options.steps = train.steps;
  options.rows_per_step = rows_per_step(work.recipe, method);
  options.learning_rate = train.learning_rate;
  options.warmup_steps = train.warmup_steps;
  options.decay_fraction = train.decay;
  options.weight_decay = train.weight_decay;
  options.max_grad_norm = train.max_grad_norm;
  options.seed = static_cast<uint64_t>(train.seed);
  options.max_tokens_per_pass = train.max_tokens_per_pass;
  // KUDA's loss has no gradient where it starts; noise breaks the tie.
  options.initial_noise = train.initial_noise >= 0       ? train.initial_noise
                          : work.recipe.method == "KUDA" ? 1e-3
                                                         : 0;
  options.skip_nonfinite = work.recipe.train.on_nonfinite == "skip";
  options.projection = !work.projects()                            ? ProjectionPoint::none
                       : work.recipe.nullspace.point == "gradient" ? ProjectionPoint::gradient
                                                                   : ProjectionPoint::update;
  return options;
}

LoraOptions lora_options(const Recipe& recipe) {
  LoraOptions options;
  options.r = recipe.lora.r;
  options.lora_alpha = recipe.lora.lora_alpha;
  options.target_modules.clear();
  for (const auto& name : recipe.lora.target_modules)
    options.target_modules.push_back(projection_from_name(name));
  return options;
}

std::map<InputId, Projector> read_projectors(const Workspace& work) {
  std::map<InputId, Projector> projectors;
  if (!work.projects()) return projectors;
  const auto store = BasisStore::open(work.run.stage_folder("nullspace"));
  for (const auto& id : inputs_of(work.trained_modules()))
    projectors[id] = Projector::from_slice(store.read_slice(id, work.mesh), work.mesh);
  return projectors;
}

ModelUpdate update_of(const Trainer& trainer, TrainedParameters parameters) {
  ModelUpdate update;
  if (parameters == TrainedParameters::lora) {
    update.lora_scale = trainer.lora_scale();
    for (const auto& [module, pair] : trainer.global_adapters())
      update.adapters[module] = {pair.first.to(at::kCPU, at::kFloat), pair.second.to(at::kCPU, at::kFloat)};
  } else {
    for (const auto& module : trainer.trained())
      update.matrices[module] = trainer.global_update(module).to(at::kCPU, at::kFloat);
  }
  return update;
}

void read_all(const Hdf5File& file) {
  for (const auto& kind : file.list())
    for (const auto& chunk : file.list(kind))
      for (const auto& values : file.list(kind + "/" + chunk))
        file.read(std::string(kind).append("/").append(chunk).append("/").append(values));
}

/// Reference values that an interrupted run left are used again where they are whole.
void drop_damaged_references(const Workspace& work, const std::filesystem::path& folder) {
  std::error_code ignored;
  if (work.mesh.is_root())
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      try {
        read_all(Hdf5File::open(entry.path()));
      } catch (const Error& error) {
        work.progress.note(std::string("not used: ") + error.what());
        std::filesystem::remove(entry.path(), ignored);
      }
    }
  work.mesh.world.barrier();
}

nlohmann::json run(Workspace& work) {
  const auto folder = work.run.stage_folder("unlearn");
  const auto method = work.method();
  const bool asks = needs_own_answers(work.recipe);
  TrainingPool pool = make_pool(work.rows(), work.data, *method,
                                asks ? read_own_answers(work.run.stage_folder("answers")) : OwnAnswers());
  Transformer model = work.take_model();
  drop_damaged_references(work, folder / "references");
  work.progress.part("reference rows");
  ReferenceCache references =
      ReferenceCache::build(folder / "references", model, pool, *method,
                            [&](int64_t done, int64_t total) { work.progress.update(done, total); });
  work.progress.part("steps");
  Trainer trainer(model, *method, std::move(pool), references, read_projectors(work),
                  train_options(work, *method), lora_options(work.recipe), work.trained_modules());
  const TrainingHistory history = run_training_loop(work, trainer, "unlearn", work.recipe.train.steps);
  const ModelUpdate update = update_of(trainer, method->trains());
  if (work.mesh.is_root()) update.write(folder / "update.safetensors");
  nlohmann::json rows;
  for (const auto& [role, count] : rows_per_step(work.recipe, *method)) rows[role_name(role)] = count;
  return {{"method", work.recipe.method},
          {"steps", history.steps},
          {"rows_per_step", rows},
          {"resumed_at", history.resumed_at},
          {"skipped", trainer.steps_skipped()},
          {"modules", update.modules().size()}};
}

std::string line(const nlohmann::json& summary) {
  const auto& steps = summary["steps"];
  double seconds = 0;
  std::vector<double> losses;  // of the steps that were not skipped
  for (const auto& step : steps) {
    seconds += step["seconds"].get<double>();
    if (!step.contains("skipped")) losses.push_back(step["loss"].get<double>());
  }
  std::string text = std::to_string(steps.size()) + " steps of " + summary["method"].get<std::string>();
  if (!losses.empty())
    text += ", " + number_text(seconds / static_cast<double>(steps.size())) + " s a step, loss " +
            number_text(losses.front()) + " -> " + number_text(losses.back());
  if (const auto skipped = summary.value("skipped", 0); skipped > 0)
    text += ", " + std::to_string(skipped) + " skipped";
  return text;
}

}  // namespace

Stage unlearn_stage() {
  Stage stage{"unlearn", [](const Workspace&) { return true; }, settings, run, line, reads};
  stage.version = 2;  // files whose every block is checked
  return stage;
}

}  // namespace efface
