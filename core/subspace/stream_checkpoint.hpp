// Where a stream of covariances stands, on disk, so that a killed run goes on inside its pass: the hidden
// states at boundaries between groups of layers, and the sums of the group under way.
//
// The folder: hidden-<layer>-data-<rank>-<segment>.h5, "pass-<i>" [tokens, hidden] in the model's dtype,
// written by each tensor group's first rank, a segment from one save to the next; sums-<save>-<rank>.h5,
// CovarianceAccumulator::save() of each rank; and manifest.json (store_manifest.hpp), which alone says what
// counts: "boundaries" {layer: [passes up to the end of each segment]} and "sums" {"inputs", "begin", "pass",
// "save"}. It is replaced last, so a kill at any time leaves one whole state.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/subspace/covariance.hpp"
#include "core/subspace/store_manifest.hpp"

namespace efface {

class StreamCheckpoint {
 public:
  /// `tokens`: this data rank's of each pass. Takes up what a run on the same mesh, with as many passes, left
  /// in `folder`; that it is of the same model and text is the caller's to know. What is damaged is left out
  /// and said in take_notes(). Collective, as all that follows but for write_hidden().
  StreamCheckpoint(std::filesystem::path folder, const Mesh& mesh, std::vector<int64_t> tokens);

  /// What was found since the last call and cannot be used, one sentence each; the same on every rank.
  std::vector<std::string> take_notes();
  /// The highest layer, at most `layer`, whose input hidden states are there for every pass; 0: the
  /// embeddings.
  int boundary_below(int layer);

  /// Were sums of `group`, begun at layer `begin`, saved? Not collective.
  bool has_sums(const std::vector<InputId>& group, int begin) const;
  /// Restores them: the pass to go on with. None where they, or the hidden states that left the group's last
  /// layer before that pass, cannot be read: `accumulator` is of no use then.
  std::optional<size_t> restore(const std::vector<InputId>& group, CovarianceAccumulator& accumulator);
  /// Hidden states that enter `layer` are written from `pass` on.
  void begin_boundary(int layer, size_t pass);
  void write_hidden(size_t pass, const at::Tensor& hidden);
  /// Sums and hidden states of the passes before `pass` are safe after it.
  void save(const std::vector<InputId>& group, int begin, size_t pass,
            const CovarianceAccumulator& accumulator);
  /// The same of all hidden states of the boundary, which can be read from then on.
  void end_boundary();
  at::Tensor read_hidden(int layer, size_t pass, int64_t width, at::ScalarType dtype);
  /// Removes everything but the boundary at `layer`.
  void keep_only(int layer);
  void remove();

 private:
  std::string hidden_file(int layer, size_t segment) const;
  void read();
  bool is_whole(int layer, size_t passes);
  const StoreFile& opened(const std::string& file);
  void seal(size_t passes);
  void commit();
  void make_folder() const;

  std::filesystem::path folder_;
  Mesh mesh_;
  std::vector<int64_t> tokens_;
  nlohmann::json key_;
  std::vector<std::string> notes_;

  nlohmann::json manifest_;                              // as it is on disk; null: there is none
  std::map<int, std::vector<size_t>> boundaries_;        // layer -> passes up to the end of each segment
  nlohmann::json sums_;                                  // null: none
  nlohmann::json new_files_ = nlohmann::json::object();  // of this rank, since the last commit
  std::map<std::string, StoreFile> opened_;

  int open_layer_ = 0;
  std::optional<StoreFileWriter> segment_;  // on the tensor group's first rank
};

}  // namespace efface
