// Covariances and bases on disk, HDF5 beside a manifest.json; what one mesh wrote any other reads.
//
// Covariances: data rank 0's tensor rank r of t writes covariance-<r>-of-<t>.h5 with "<input>/matrix",
// "<input>/heldout" [rows r, n] fp32 and "<input>/sink_mean" [n] fp64; what was written after a publish() is
// in further parts, covariance-<r>-of-<t>-part-<p>.h5. The scalars, and each input's part, are in the
// manifest. Bases: each rank that solved some writes bases-<world rank>.h5 with "<input>/vectors" fp32, [n,
// m] for sharded inputs and [m, n] (transposed) for replicated ones, so that a tensor rank's part is
// consecutive rows of the dataset; "<input>/weights" [m] fp32 and "<input>/eigenvalues" [n] fp64.
//
// What is read is what was written, to the bit, or Error(storage) naming the file: missing, cut short,
// damaged, of another run, or not what the manifest says of it (store_manifest.hpp).
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/subspace/covariance.hpp"
#include "core/subspace/projector.hpp"
#include "distributed/mesh.hpp"

namespace efface {

class StoreFileWriter;  // store_manifest.hpp

/// One folder of covariances, some inputs at a time. Readable after finish(); what was published before is
/// kept for a run that was ended in between.
class CovarianceWriter {
 public:
  /// Takes up what is there already under the same key by the same number of tensor ranks; an input that is
  /// damaged does not count as there, and is named in notes(). Collective over the mesh.
  CovarianceWriter(std::filesystem::path folder, const Mesh& mesh, nlohmann::json key = {});
  /// Inputs that need not be written again.
  std::vector<InputId> published() const;
  const std::vector<std::string>& notes() const { return notes_; }
  /// The matrices are rounded to what the files hold, fp32, so that the run that wrote them and one that
  /// reads them go on alike. Not collective.
  void write(Covariance& covariance);
  /// What was written is safe from now on. Collective over the mesh.
  void publish();
  /// publish(), and the store is whole. Collective over the mesh.
  void finish();

 private:
  void take_up();
  void verify(const nlohmann::json& manifest, const InputId& id) const;
  void write_manifest_of(bool whole);
  std::vector<std::string> drop_unused_files();

  std::filesystem::path folder_;
  Mesh mesh_;
  nlohmann::json key_;
  std::vector<std::string> notes_;
  int64_t part_ = 0;
  std::shared_ptr<StoreFileWriter> file_;  // on data rank 0
  nlohmann::json entries_ = nlohmann::json::object();
  nlohmann::json files_ = nlohmann::json::object();
};

class CovarianceStore {
 public:
  /// Throws Error(storage) when there is no manifest, or it is of another kind, or was never finished.
  static CovarianceStore open(const std::filesystem::path& folder);

  std::vector<InputId> inputs() const;
  const nlohmann::json& key() const { return manifest_.at("key"); }
  /// This tensor rank's block rows; reads no other rows. Not collective.
  Covariance read(const InputId& id, const Mesh& mesh) const;

 private:
  at::Tensor read_rows(const std::string& dataset, int64_t part, int64_t n, int64_t begin, int64_t end) const;

  std::filesystem::path folder_;
  nlohmann::json manifest_;
};

/// One rank's part in writing a folder of bases: write() those it solved, then finish() with all ranks.
class BasisWriter {
 public:
  BasisWriter(std::filesystem::path folder, const Communicator& world);
  void write(const Basis& basis);
  /// Closes the files; rank 0 writes the manifest. Collective.
  void finish(const nlohmann::json& key = {});

 private:
  std::filesystem::path folder_;
  Communicator world_;
  std::string file_name_;
  std::shared_ptr<StoreFileWriter> file_;
  nlohmann::json entries_ = nlohmann::json::object();
};

class BasisStore {
 public:
  static BasisStore open(const std::filesystem::path& folder);

  std::vector<InputId> inputs() const;
  const nlohmann::json& key() const { return manifest_.at("key"); }
  Basis read(const InputId& id) const;
  /// `vectors` (and, for a replicated input, `weights`) are this rank's part alone: for
  /// Projector::from_slice.
  Basis read_slice(const InputId& id, const Mesh& mesh) const;

 private:
  Basis read_part(const InputId& id, int rank, int size) const;

  std::filesystem::path folder_;
  nlohmann::json manifest_;
};

}  // namespace efface
