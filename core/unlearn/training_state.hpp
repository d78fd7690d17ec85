// Training state on disk: a folder of checkpoints, "step-00000120" each, of one HDF5 file a rank with its
// part of every tensor, and a manifest. Parts carry their place in the global matrix, so that any mesh reads
// what any other wrote. A checkpoint appears by one rename, when every rank has written its file and read it
// back.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <future>
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

/// One rank's part of the state at one step: copies in host memory, that training on does not change.
struct TrainingSnapshot {
  struct Part {
    std::string name;   ///< "PIECE/VECTOR"
    at::Tensor matrix;  ///< [rows, columns]
    int64_t row_begin = 0, column_begin = 0;
  };
  std::vector<Part> parts;
  /// "step", and all that restore() wants back; the root's is written.
  nlohmann::json description;
};

TrainingSnapshot take_snapshot(const std::vector<ParameterPiece>& pieces,
                               const std::vector<StateVector>& vectors, nlohmann::json description);

/// Writes checkpoints beside the training: a thread writes this rank's file from a snapshot, and never calls
/// MPI; the ranks come together only to publish.
class CheckpointWriter {
 public:
  /// @param kept the newest so many stay in the folder. Collective.
  CheckpointWriter(std::filesystem::path folder, const Mesh& mesh, int64_t kept);

  /// Hands a snapshot to the thread. @pre !pending()
  void begin(TrainingSnapshot snapshot);
  /// Begun and not yet published; the same on every rank.
  bool pending() const { return writing_.valid(); }
  /// Whether this rank's thread has nothing left to do.
  bool written() const;
  /// Waits for every rank's file, then publishes; nothing where nothing is pending. Throws Error(storage) on
  /// every rank where one could not write; the older checkpoints stay. Collective.
  void publish();

 private:
  std::filesystem::path folder_, fresh_;
  Mesh mesh_;
  int64_t kept_;
  nlohmann::json description_;
  std::future<nlohmann::json> writing_;  // this rank's part of the manifest
};

struct RestoredState {
  nlohmann::json description;
  std::vector<std::string> damaged;  ///< what was wrong with newer checkpoints, which are removed
};

/// Fills the vectors with this rank's parts of the newest checkpoint that is whole; none when there is none,
/// the vectors are then as before. `check` may throw for the description of a state that is not wanted.
/// Collective.
std::optional<RestoredState> load_training_state(
    const std::filesystem::path& folder, const Mesh& mesh, const std::vector<ParameterPiece>& pieces,
    const std::vector<StateVector>& vectors,
    const std::function<void(const nlohmann::json& description)>& check);

}  // namespace efface
