// Training state on disk: one HDF5 file a rank with its part of every tensor, and a manifest. Parts carry
// their place in the global matrix, so that any mesh reads what any other wrote. Published by renaming the
// folder.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/unlearn/parameters.hpp"

namespace efface {

/// A named vector laid out like Parameters::values ("value", "first_moment", ...).
struct StateVector {
  std::string name;
  at::Tensor flat;
};

/// `manifest` is written as it is, with what the format needs added. Collective.
void save_training_state(const std::filesystem::path& folder, const Mesh& mesh,
                         const std::vector<ParameterPiece>& pieces, const std::vector<StateVector>& vectors,
                         nlohmann::json manifest);

/// The manifest of the complete state in `folder`, the same on every rank; none when there is none.
/// Collective.
std::optional<nlohmann::json> read_training_manifest(const std::filesystem::path& folder, const Mesh& mesh);

/// Fills the vectors with this rank's parts. Throws Error(storage) where a part is missing or has another
/// shape. Collective.
void load_training_state(const std::filesystem::path& folder, const Mesh& mesh,
                         const std::vector<ParameterPiece>& pieces, const std::vector<StateVector>& vectors,
                         const nlohmann::json& manifest);

}  // namespace efface
