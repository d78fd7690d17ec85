// What a stage left on disk, so that a file that is cut short, stale or damaged is found before it is used.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "distributed/communicator.hpp"

namespace efface {

/// {"sub/file": {"bytes": size, "crc32c": checksum}, ...} of every file below `folder`; `except` are names of
/// files and folders in it that are left out. The ranks share the reading. Collective.
nlohmann::json list_files(const std::filesystem::path& folder, const std::vector<std::string>& except,
                          const Communicator& world);

/// Of the files of such a list those that are not as they were -> what is wrong. The same on every rank; the
/// ranks share the reading. Collective.
std::map<std::string, std::string> damaged_files(const std::filesystem::path& folder,
                                                 const nlohmann::json& listed, const Communicator& world);

}  // namespace efface
