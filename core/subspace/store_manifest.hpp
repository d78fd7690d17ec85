// What the two stores of this room share: the manifest beside the HDF5 files.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/module.hpp"

namespace efface {

/// {"format": 1, "kind": kind, "key": key, "inputs": {name: {...}}}
nlohmann::json make_manifest(const std::string& kind, const nlohmann::json& key, nlohmann::json inputs);
/// Throws Error(storage) naming the file when it is missing, damaged or of another kind or format.
nlohmann::json read_manifest(const std::filesystem::path& folder, const std::string& kind);
void write_manifest(const std::filesystem::path& folder, const nlohmann::json& manifest);

/// The inverse of input_name(), sorted.
std::vector<InputId> inputs_of_manifest(const nlohmann::json& manifest);
/// Throws Error(storage) when the input is not there.
const nlohmann::json& manifest_entry(const nlohmann::json& manifest, const std::filesystem::path& folder,
                                     const InputId& id);

}  // namespace efface
