#include "core/unlearn/trainer_state.hpp"
#include "core/unlearn/training_state.hpp"
#include "distributed/error.hpp"

namespace efface {

int64_t Trainer::steps_done() const { return state_->steps_done; }
const std::vector<ModuleId>& Trainer::trained() const { return state_->trained; }
double Trainer::lora_scale() const { return state_->lora.lora_alpha / static_cast<double>(state_->lora.r); }

void Trainer::save(const std::filesystem::path& folder) const {
  const State& state = *state_;
  nlohmann::json manifest = {{"method", state.method.name()},
                             {"step", state.steps_done},
                             {"seed", state.options.seed},
                             {"lora_alpha", state.lora.lora_alpha}};
  save_training_state(folder, state.mesh(), state.parameters->pieces(),
                      {{"value", state.parameters->values()},
                       {"first_moment", state.adam->first_moment()},
                       {"second_moment", state.adam->second_moment()}},
                      manifest);
}

bool Trainer::restore(const std::filesystem::path& folder) {
  State& state = *state_;
  const auto manifest = read_training_manifest(folder, state.mesh());
  if (!manifest) return false;
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const ParameterPiece& piece : state.parameters->pieces())
    shapes[piece.name] = {piece.global_rows, piece.global_columns};
  if (manifest->at("method") != state.method.name() || manifest->at("seed") != state.options.seed ||
      manifest->at("tensors").get<decltype(shapes)>() != shapes)
    throw Error(ErrorClass::storage,
                folder.string() + " is the state of another method, seed or set of modules",
                "delete the folder to train from the start");
  load_training_state(folder, state.mesh(), state.parameters->pieces(),
                      {{"value", state.parameters->values()},
                       {"first_moment", state.adam->first_moment()},
                       {"second_moment", state.adam->second_moment()}},
                      *manifest);
  state.steps_done = manifest->at("step").get<int64_t>();
  state.parameters->publish();
  return true;
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
