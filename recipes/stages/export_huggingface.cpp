#include <map>
#include <set>

#include "core/model/tensors.hpp"
#include "core/storage/pending_folder.hpp"
#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"
#include "recipes/stages/export_formats.hpp"

namespace efface {
namespace {

/// What belongs to a model folder beside its weights. Repository files such as .git stay where they are.
bool is_carried(const std::filesystem::path& file) {
  static const std::set<std::string> extensions = {".json", ".model", ".jinja", ".txt"};
  return extensions.count(file.extension()) > 0 && file.filename() != "model.safetensors.index.json";
}

/// Says fp32 in a copy of config.json, or whoever loads the folder with the dtype that it names would round
/// the tensors again.
void name_fp32(const std::filesystem::path& config_file) {
  auto config = nlohmann::ordered_json::parse(read_text_file(config_file));
  const bool newer = config.contains("dtype");  // the name that transformers writes since 4.56
  if (newer) config["dtype"] = "float32";
  if (!newer || config.contains("torch_dtype")) config["torch_dtype"] = "float32";
  write_text_file(config_file, config.dump(2) + "\n");
}

void copy_other_files(const std::filesystem::path& source, const std::filesystem::path& target) {
  for (const auto& entry : std::filesystem::directory_iterator(source))
    if (entry.is_regular_file() && is_carried(entry.path()))
      std::filesystem::copy_file(entry.path(), target / entry.path().filename());
}

void write_index(const std::filesystem::path& target,
                 const std::map<std::string, std::vector<std::string>>& files, int64_t bytes) {
  if (files.size() < 2) return;
  nlohmann::json map = nlohmann::json::object();
  for (const auto& [file, names] : files)
    for (const auto& name : names) map[name] = file;
  const nlohmann::json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  write_text_file(target / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

HuggingFaceExport export_huggingface(const std::filesystem::path& source, const std::filesystem::path& target,
                                     const ModelUpdate& update, bool fp32, const std::string& model_card) {
  const auto reader = SafetensorsReader::open_folder(source);
  const ModelConfig config = read_model_config(source);
  std::map<std::string, std::vector<ModuleId>> changed;  // a fused tensor holds several modules
  for (const auto& module : update.modules()) changed[stored_weight(config, module).name].push_back(module);
  for (const auto& [name, modules] : changed)
    if (!reader.contains(name)) throw Error(ErrorClass::model, source.string() + ": has no tensor " + name);

  std::filesystem::remove_all(target);
  PendingFolder folder(target);
  std::map<std::string, std::vector<std::string>> files;
  for (const auto& name : reader.names()) files[reader.file_of(name).filename()].push_back(name);
  int64_t bytes = 0;
  HuggingFaceExport result;
  for (const auto& [file, names] : files) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& name : names) {
      at::Tensor tensor = reader.read(name);
      if (const auto found = changed.find(name); found != changed.end()) {
        const auto dtype = fp32 ? at::kFloat : tensor.scalar_type();
        tensor = tensor.to(at::kFloat);
        for (const auto& module : found->second)
          tensor.narrow(0, stored_weight(config, module).row, output_width(config, module))
              .add_(update.delta(module));
        tensor = tensor.to(dtype);
        ++result.changed;
      }
      bytes += static_cast<int64_t>(tensor.nbytes());
      ++result.tensors;
      tensors.emplace_back(name, std::move(tensor));
    }
    write_safetensors(folder.temporary() / file, tensors);
  }
  write_index(folder.temporary(), files, bytes);
  copy_other_files(source, folder.temporary());
  if (fp32) name_fp32(folder.temporary() / "config.json");
  write_text_file(folder.temporary() / "README.md", model_card);
  folder.publish();
  return result;
}

}  // namespace efface
