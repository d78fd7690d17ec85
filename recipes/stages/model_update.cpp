#include "recipes/stages/model_update.hpp"

#include "core/storage/safetensors.hpp"

namespace efface {
namespace {

const char kScale[] = "lora_scale";

std::string key(const ModuleId& module, const char* part) { return module_name(module) + "." + part; }

/// The inverse of key(): every name is that of a module and a part.
std::map<std::string, ModuleId> modules_by_name(const std::vector<std::string>& names) {
  int layers = 0;
  for (const auto& name : names)
    if (const auto at = name.find("layers."); at != std::string::npos)
      layers = std::max(layers, std::stoi(name.substr(at + 7)) + 1);
  std::map<std::string, ModuleId> all;
  for (const auto& module : modules_of(0, layers, {std::begin(kProjections), std::end(kProjections)}))
    all[module_name(module)] = module;
  return all;
}

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
  const auto modules = modules_by_name(reader.names());
  ModelUpdate update;
  update.lora_scale = reader.read(kScale).item<double>();
  for (const auto& name : reader.names()) {
    if (name == kScale) continue;
    const auto dot = name.rfind('.');
    const ModuleId& module = modules.at(name.substr(0, dot));
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
    const auto part = local_part(delta(module), module, model.mesh()).to(weight.local.device());
    // Added in fp32 and rounded once, as the export does.
    weight.local.copy_(weight.local.to(at::kFloat) + part);
  }
}

at::Tensor local_part(const at::Tensor& global, const ModuleId& module, const Mesh& mesh) {
  const int dim = is_row_parallel(module.projection) ? 1 : 0;
  const auto [begin, end] = even_range(global.size(dim), mesh.tensor_rank(), mesh.tensor_size());
  return global.narrow(dim, begin, end - begin);
}

}  // namespace efface
