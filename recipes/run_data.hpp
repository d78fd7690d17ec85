// The records and texts a recipe names, read once, and what identifies them.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/text/dataset.hpp"
#include "recipes/recipe.hpp"

namespace efface {

struct RunData {
  std::vector<Record> forget, retain, neighbours, same_relation;
  std::map<std::string, std::vector<Record>> probes;
  /// One entry a document.
  std::vector<std::string> text_covariance, text_heldout, text_retain, text_perplexity;
};

/// Reads what the recipe names. Every forget record has its safe response filled in where the recipe has one.
/// Throws Error(data) naming file and line.
RunData read_run_data(const Recipe& recipe);

/// What a cache key says of a source or a file: its content's hash and how it is read, not where it lies.
nlohmann::json source_key(const DataSource& source);
nlohmann::json file_key(const std::filesystem::path& file);
/// Of a model folder: names, sizes and times of its files, and the content of the small ones.
nlohmann::json model_folder_key(const std::filesystem::path& folder);

/// The safe answer to a forget record by the recipe's `safe_response`; empty where there is none.
std::string safe_response(const Recipe& recipe, const Record& record,
                          const std::vector<std::string>& idk_lines, int64_t index);

}  // namespace efface
