#include "recipes/stages/model_update.hpp"

#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

const char kScale[] = "lora_scale";

std::string key(const ModuleId& module, const char* part) { return module_name(module) + "." + part; }

}  // namespace

std::vector<ModuleId> ModelUpdate::modules() const {
  std::vector<ModuleId> all;
  for (const auto& [module, pair] : adapters) all.push_back(module);
  for (const auto& [module, matrix] : matrices) all.push_back(module);
  return all;
}

at::Tensor ModelUpdate::delta(const ModuleId& module) const {
  if (!is_lora()) return matrices.at(module);
  const auto& [a, b] = adapters.at(module);
  return at::mm(b, a).mul_(lora_scale);
}

void ModelUpdate::write(const std::filesystem::path& file) const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [module, pair] : adapters) {
    tensors.emplace_back(key(module, "lora_a"), pair.first.contiguous());
    tensors.emplace_back(key(module, "lora_b"), pair.second.contiguous());
  }
  for (const auto& [module, matrix] : matrices)
    tensors.emplace_back(key(module, "delta"), matrix.contiguous());
  tensors.emplace_back(kScale, at::full({1}, lora_scale, at::kDouble));
  write_safetensors(file, tensors, {{"format", "efface"}});
}

ModelUpdate ModelUpdate::read(const std::filesystem::path& file) {
  const auto reader = SafetensorsReader::open_file(file);
  ModelUpdate update;
  update.lora_scale = reader.read(kScale).item<double>();
  for (const auto& name : reader.names()) {
    if (name == kScale) continue;
    const auto dot = name.rfind('.');
    const auto named = module_from_name(name.substr(0, dot));
    if (!named) throw Error(ErrorClass::storage, file.string() + ": " + name + " is of no linear layer");
    const ModuleId& module = *named;
    const std::string part = name.substr(dot + 1);
    if (part == "lora_a")
      update.adapters[module].first = reader.read(name);
    else if (part == "lora_b")
      update.adapters[module].second = reader.read(name);
    else
      update.matrices[module] = reader.read(name);
  }
  return update;
}

void ModelUpdate::merge_into(const Transformer& model) const {
  const at::NoGradGuard no_grad;
  for (const auto& module : modules()) {
    Weight weight = model.weight(module);
    const auto part = local_part(delta(module), weight).to(weight.local.device());
    // Added in fp32 and rounded once, as the export does.
    weight.local.copy_(weight.local.to(at::kFloat) + part);
  }
}

at::Tensor local_part(const at::Tensor& global, const Weight& weight) {
  return global.narrow(weight.dim(), weight.begin, weight.local.size(weight.dim()));
}

}  // namespace efface
