// finetune: teach the model the forget and retain answers first (as TOFU does), so that there is something to
// forget. Its result is a model folder that the later stages start from.
#include "recipes/stages/export_formats.hpp"
#include "recipes/stages/training_loop.hpp"

namespace efface {
namespace {

bool wanted(const Workspace& work) { return work.recipe.finetune.steps > 0; }

nlohmann::json settings(const Workspace& work) {
  const FinetuneSection& finetune = work.recipe.finetune;
  return {{"model", work.model_key()},
          {"data", {source_key(work.recipe.data.forget), source_key(work.recipe.data.retain)}},
          {"text_window", work.recipe.train.text_window},
          {"steps", finetune.steps},
          {"batch_size", finetune.batch_size},
          {"learning_rate", finetune.learning_rate},
          {"warmup_steps", finetune.warmup_steps},
          {"r", finetune.r},
          {"lora_alpha", finetune.lora_alpha},
          {"seed", work.recipe.train.seed}};
}

TrainingPool pool_of(const Workspace& work) {
  TrainingPool pool;
  auto& groups = pool.groups[RowRole::retain];
  const RowMaker maker = work.rows();
  for (const auto* source : {&work.data.forget, &work.data.retain})
    for (const auto& record : *source) {
      if (is_question(record)) {
        groups.push_back({{maker.answer(record), RowRole::retain, 1}});
      } else {
        for (auto& row : maker.windows({record.text}, work.recipe.train.text_window))
          groups.push_back({{std::move(row), RowRole::retain, 1}});
      }
    }
  return pool;
}

nlohmann::json run(Workspace& work) {
  const FinetuneSection& finetune = work.recipe.finetune;
  const auto method = make_method("FineTune");
  TrainOptions options;
  options.steps = finetune.steps;
  options.rows_per_step = {{RowRole::retain, finetune.batch_size}};
  options.learning_rate = finetune.learning_rate;
  options.warmup_steps = finetune.warmup_steps;
  options.seed = static_cast<uint64_t>(work.recipe.train.seed);
  options.projection = ProjectionPoint::none;
  options.max_tokens_per_pass = work.recipe.train.max_tokens_per_pass;
  options.parameters = finetune.r > 0 ? TrainedParameters::lora : TrainedParameters::full;
  LoraOptions lora;
  if (finetune.r > 0) lora.r = finetune.r;
  lora.lora_alpha = finetune.lora_alpha;
  const auto modules =
      modules_of(work.config(), 0, static_cast<int>(work.config().layers), lora.target_modules);

  Transformer model = work.take_model();
  Trainer trainer(model, *method, pool_of(work), ReferenceCache(), {}, options, lora, modules);
  const auto folder = work.run.stage_folder("finetune");
  const TrainingHistory history = run_training_loop(work, trainer, "finetune", finetune.steps);
  nlohmann::json losses = nlohmann::json::array();
  for (const auto& step : history.steps) losses.push_back(step.at("loss"));
  ModelUpdate update;
  if (finetune.r > 0) {
    update.lora_scale = trainer.lora_scale();
    update.adapters = trainer.global_adapters();
  } else {
    for (const auto& module : modules)
      update.matrices[module] = trainer.global_update(module).to(at::kCPU, at::kFloat);
  }
  if (work.mesh.is_root())
    export_huggingface(work.recipe.model.path, folder / "model", update, false,
                       "# Fine-tuned on the run's own data\n");
  work.mesh.world.barrier();
  return {{"losses", losses}, {"model", "finetune/model"}};
}

std::string line(const nlohmann::json& summary) {
  const auto& losses = summary["losses"];
  std::string text = std::to_string(losses.size()) + " steps";
  if (!losses.empty()) text += ", loss " + number_text(losses.front()) + " -> " + number_text(losses.back());
  return text;
}

}  // namespace

Stage finetune_stage() {
  Stage stage{"finetune", wanted, settings, run, line};
  stage.version = 2;  // files whose every block is checked
  return stage;
}

}  // namespace efface
