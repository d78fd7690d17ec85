#include "core/subspace/store_manifest.hpp"

#include <algorithm>

#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int kFormat = 1;
constexpr const char* kManifest = "manifest.json";

InputId input_from_name(const std::string& name) {
  for (Input input : kInputs) {
    const InputId id{std::atoi(name.c_str()), input};
    if (input_name(id) == name) return id;
  }
  throw Error(ErrorClass::storage, "manifest.json names an unknown input '" + name + "'");
}

}  // namespace

nlohmann::json make_manifest(const std::string& kind, const nlohmann::json& key, nlohmann::json inputs) {
  return {{"format", kFormat}, {"kind", kind}, {"key", key}, {"inputs", std::move(inputs)}};
}

nlohmann::json read_manifest(const std::filesystem::path& folder, const std::string& kind) {
  const std::filesystem::path file = folder / kManifest;
  if (!std::filesystem::exists(file))
    throw Error(ErrorClass::storage, file.string() + " is missing", "run the stage that writes it again");
  const auto manifest = nlohmann::json::parse(read_text_file(file), nullptr, false);
  if (!manifest.is_object() || manifest.value("kind", "") != kind || manifest.value("format", 0) != kFormat ||
      !manifest.contains("key") || !manifest.contains("inputs") || !manifest["inputs"].is_object())
    throw Error(ErrorClass::storage, file.string() + " is not a manifest of " + kind + " this version reads",
                "delete the folder and run the stage again");
  return manifest;
}

void write_manifest(const std::filesystem::path& folder, const nlohmann::json& manifest) {
  write_text_file(folder / kManifest, manifest.dump(1) + "\n");
}

std::vector<InputId> inputs_of_manifest(const nlohmann::json& manifest) {
  std::vector<InputId> inputs;
  for (const auto& [name, entry] : manifest.at("inputs").items()) inputs.push_back(input_from_name(name));
  std::sort(inputs.begin(), inputs.end());
  return inputs;
}

const nlohmann::json& manifest_entry(const nlohmann::json& manifest, const std::filesystem::path& folder,
                                     const InputId& id) {
  const auto& inputs = manifest.at("inputs");
  const auto found = inputs.find(input_name(id));
  if (found == inputs.end())
    throw Error(ErrorClass::storage, folder.string() + " has nothing of input " + input_name(id));
  return *found;
}

}  // namespace efface
