#include "core/unlearn/trainer_state.hpp"
#include "distributed/error.hpp"

namespace efface {

int64_t Trainer::steps_done() const { return state_->steps_done; }
int64_t Trainer::steps_skipped() const { return state_->steps_skipped; }
const std::vector<ModuleId>& Trainer::trained() const { return state_->trained; }
double Trainer::lora_scale() const { return state_->lora.lora_alpha / static_cast<double>(state_->lora.r); }

std::vector<StateVector> Trainer::State::vectors() const {
  return {{"value", parameters->values()},
          {"first_moment", adam->first_moment()},
          {"second_moment", adam->second_moment()}};
}

TrainingSnapshot Trainer::snapshot() const {
  const State& state = *state_;
  return take_snapshot(state.parameters->pieces(), state.vectors(),
                       {{"method", state.method.name()},
                        {"step", state.steps_done},
                        {"skipped", state.steps_skipped},
                        {"seed", state.options.seed},
                        {"lora_alpha", state.lora.lora_alpha}});
}

void Trainer::save(const std::filesystem::path& folder) const {
  CheckpointWriter writer(folder, state_->mesh(), 1);
  writer.begin(snapshot());
  writer.publish();
}

Trainer::Restored Trainer::restore(const std::filesystem::path& folder) {
  State& state = *state_;
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const ParameterPiece& piece : state.parameters->pieces())
    shapes[piece.name] = {piece.global_rows, piece.global_columns};
  const auto check = [&](const nlohmann::json& found) {
    if (found.at("method") != state.method.name() || found.at("seed") != state.options.seed ||
        found.at("tensors").get<decltype(shapes)>() != shapes)
      throw Error(ErrorClass::storage,
                  folder.string() + " is the state of another method, seed or set of modules",
                  "delete the folder to train from the start");
  };
  auto loaded = load_training_state(folder, state.mesh(), state.parameters->pieces(), state.vectors(), check);
  if (!loaded) return {};
  Restored restored{!loaded->description.is_null(), std::move(loaded->description),
                    std::move(loaded->damaged)};
  if (restored.found) {
    state.steps_done = restored.description.at("step").get<int64_t>();
    state.steps_skipped = restored.description.at("skipped").get<int64_t>();
    state.parameters->publish();
  }
  return restored;
}

std::map<ModuleId, std::pair<at::Tensor, at::Tensor>> Trainer::global_adapters() const {
  std::map<ModuleId, std::pair<at::Tensor, at::Tensor>> adapters;
  if (state_->kind != TrainedParameters::lora) return adapters;
  for (const ParameterPiece& piece : state_->parameters->pieces()) {
    auto& [a, b] = adapters[piece.module];
    (piece.name.ends_with(".lora_a") ? a : b) = state_->parameters->published(piece);
  }
  return adapters;
}

at::Tensor Trainer::global_update(const ModuleId& module) const {
  const Parameters& parameters = *state_->parameters;
  const std::string name = module_name(module);
  if (state_->kind != TrainedParameters::lora)
    return parameters.published(parameters.piece(name + ".update"));
  const auto a = parameters.published(parameters.piece(name + ".lora_a"));
  const auto b = parameters.published(parameters.piece(name + ".lora_b"));
  return at::mm(b, a) * lora_scale();
}

std::map<std::string, at::Tensor> Trainer::global_gradients() const {
  std::map<std::string, at::Tensor> gradients;
  if (!state_->gradient.defined()) return gradients;
  for (const ParameterPiece& piece : state_->parameters->pieces())
    gradients[piece.name] = state_->parameters->gather(piece, state_->gradient);
  return gradients;
}

void Trainer::set_adapters(const std::map<ModuleId, std::pair<at::Tensor, at::Tensor>>& adapters) {
  Parameters& parameters = *state_->parameters;
  for (const auto& [module, factors] : adapters) {
    parameters.set(parameters.piece(module_name(module) + ".lora_a"), factors.first);
    parameters.set(parameters.piece(module_name(module) + ".lora_b"), factors.second);
  }
  parameters.publish();
}

void Trainer::set_updates(const std::map<ModuleId, at::Tensor>& updates) {
  Parameters& parameters = *state_->parameters;
  for (const auto& [module, dw] : updates)
    parameters.set(parameters.piece(module_name(module) + ".update"), dw);
  parameters.publish();
}

}  // namespace efface
