#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/model/tensors.hpp"
#include "core/storage/pending_folder.hpp"
#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "recipes/stages/export_formats.hpp"

namespace efface {
namespace {

std::string stored_module(const ModelConfig& config, const ModuleId& module) {
  const std::string name = stored_weight(config, module).name;
  return name.substr(0, name.rfind('.'));
}

/// The adapters of what one tensor of the folder holds, as one: A below A, B on the diagonal.
std::pair<at::Tensor, at::Tensor> joined(const ModelConfig& config, const std::vector<ModuleId>& parts,
                                         const ModelUpdate& update) {
  if (!is_fused(config.layout, parts.front().projection)) {
    const auto& [a, b] = update.adapters.at(parts.front());
    return {a.contiguous(), b.contiguous()};
  }
  int64_t rows = 0, rank = 0;
  for (const Projection projection : kProjections)
    if (input_of(projection) == input_of(parts.front().projection))
      rows += output_width(config, {parts.front().layer, projection});
  std::vector<at::Tensor> a;
  for (const ModuleId& part : parts) a.push_back(update.adapters.at(part).first);
  const at::Tensor stacked = at::cat(a);
  at::Tensor b = at::zeros({rows, stacked.size(0)}, stacked.options());
  for (const ModuleId& part : parts) {
    const at::Tensor& factor = update.adapters.at(part).second;
    b.narrow(0, stored_weight(config, part).row, factor.size(0))
        .narrow(1, rank, factor.size(1))
        .copy_(factor);
    rank += factor.size(1);
  }
  return {stacked, b};
}

}  // namespace

void export_peft(const std::filesystem::path& target, const std::filesystem::path& base_model,
                 const ModelUpdate& update, double lora_alpha, const std::string& model_card) {
  const ModelConfig model = read_model_config(base_model);
  std::map<std::string, std::vector<ModuleId>> modules;  // by the name the folder has for them
  int64_t r = 0;
  for (const auto& [module, pair] : update.adapters) {
    modules[stored_module(model, module)].push_back(module);
    r = pair.first.size(0);
  }
  std::set<std::string> projections;
  std::set<int> layers;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  nlohmann::json ranks = nlohmann::json::object(), alphas = nlohmann::json::object();
  for (const auto& [name, parts] : modules) {
    const auto [a, b] = joined(model, parts, update);
    const std::string projection = name.substr(name.rfind('.') + 1);
    tensors.emplace_back("base_model.model." + name + ".lora_A.weight", a);
    tensors.emplace_back("base_model.model." + name + ".lora_B.weight", b);
    projections.insert(projection);
    layers.insert(parts.front().layer);
    if (a.size(0) == r) continue;
    ranks[projection] = a.size(0);  // the same scale alpha / r
    alphas[projection] = lora_alpha * static_cast<double>(a.size(0)) / static_cast<double>(r);
  }
  const nlohmann::json config = {{"peft_type", "LORA"},
                                 {"task_type", "CAUSAL_LM"},
                                 {"base_model_name_or_path", base_model.string()},
                                 {"r", r},
                                 {"lora_alpha", lora_alpha},
                                 {"lora_dropout", 0.0},
                                 {"bias", "none"},
                                 {"fan_in_fan_out", false},
                                 {"inference_mode", true},
                                 {"init_lora_weights", true},
                                 {"layers_pattern", "layers"},
                                 {"layers_to_transform", layers},
                                 {"rank_pattern", ranks},
                                 {"alpha_pattern", alphas},
                                 {"target_modules", projections}};
  std::filesystem::remove_all(target);
  PendingFolder folder(target);
  write_safetensors(folder.temporary() / "adapter_model.safetensors", tensors);
  write_text_file(folder.temporary() / "adapter_config.json", config.dump(2) + "\n");
  write_text_file(folder.temporary() / "README.md", model_card);
  folder.publish();
}

}  // namespace efface
