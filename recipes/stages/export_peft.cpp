#include <nlohmann/json.hpp>
#include <set>

#include "core/storage/pending_folder.hpp"
#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "recipes/stages/export_formats.hpp"

namespace efface {

void export_peft(const std::filesystem::path& target, const std::filesystem::path& base_model,
                 const ModelUpdate& update, double lora_alpha, const std::string& model_card) {
  std::set<std::string> projections;
  std::set<int> layers;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  int64_t r = 0;
  for (const auto& [module, pair] : update.adapters) {
    const std::string base = "base_model.model." + module_name(module);
    tensors.emplace_back(base + ".lora_A.weight", pair.first.contiguous());
    tensors.emplace_back(base + ".lora_B.weight", pair.second.contiguous());
    projections.insert(projection_name(module.projection));
    layers.insert(module.layer);
    r = pair.first.size(0);
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
                                 {"target_modules", projections}};
  std::filesystem::remove_all(target);
  PendingFolder folder(target);
  write_safetensors(folder.temporary() / "adapter_model.safetensors", tensors);
  write_text_file(folder.temporary() / "adapter_config.json", config.dump(2) + "\n");
  write_text_file(folder.temporary() / "README.md", model_card);
  folder.publish();
}

}  // namespace efface
