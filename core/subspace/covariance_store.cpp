#include <algorithm>

#include "core/storage/merged_json.hpp"
#include "core/subspace/store_manifest.hpp"
#include "core/subspace/subspace_store.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr const char* kKind = "covariances";
constexpr int64_t kMostTokens = std::numeric_limits<int64_t>::max();

std::string file_name(int rank, int size) {
  return "covariance-" + std::to_string(rank) + "-of-" + std::to_string(size) + ".h5";
}

// Rounds `matrix` to fp32 in place and gives that fp32 copy.
at::Tensor rounded(BlockRows& matrix) {
  const at::Tensor single = matrix.local.to(at::kFloat);
  matrix.local.copy_(single);
  return single;
}

}  // namespace

CovarianceWriter::CovarianceWriter(std::filesystem::path folder, const Mesh& mesh)
    : folder_(std::move(folder)), mesh_(mesh) {
  if (mesh.data_rank() != 0) return;
  std::filesystem::create_directories(folder_);
  file_ = std::make_shared<StoreFileWriter>(folder_ / file_name(mesh.tensor_rank(), mesh.tensor_size()));
}

void CovarianceWriter::write(Covariance& covariance) {
  const std::string name = input_name(covariance.id);
  const bool heldout = covariance.heldout_tokens > 0, sink = covariance.sink_mean.defined();
  const at::Tensor matrix = rounded(covariance.matrix);
  const at::Tensor heldout_matrix = heldout ? rounded(covariance.heldout) : at::Tensor();
  if (file_) {
    file_->write(name + "/matrix", matrix);
    if (heldout) file_->write(name + "/heldout", heldout_matrix);
    if (sink) file_->write(name + "/sink_mean", covariance.sink_mean);
  }
  entries_[name] = {{"n", covariance.matrix.n},
                    {"tokens", covariance.tokens},
                    {"heldout_tokens", covariance.heldout_tokens},
                    {"norm_cap", covariance.norm_cap},
                    {"top_token_share", covariance.top_token_share},
                    {"sink_mean", sink}};
}

void CovarianceWriter::finish(const nlohmann::json& key) {
  const nlohmann::json mine = file_ ? file_->close() : nlohmann::json::object();
  file_.reset();
  nlohmann::json files = merged_over_ranks(mesh_.world, mine);
  if (mesh_.is_root()) {
    nlohmann::json manifest = make_manifest(kKind, key, std::move(entries_), std::move(files));
    manifest["tensor"] = mesh_.tensor_size();
    write_manifest(folder_, manifest);
  }
  mesh_.world.barrier();
}

CovarianceStore CovarianceStore::open(const std::filesystem::path& folder) {
  CovarianceStore store;
  store.folder_ = folder;
  store.manifest_ = read_manifest(folder, kKind);
  const auto& tensor = store.manifest_["tensor"];
  if (!tensor.is_number_unsigned() || tensor < 1 || tensor != store.manifest_["files"].size())
    throw Error(ErrorClass::storage, (folder / "manifest.json").string() + " does not say how it is sharded",
                "delete the folder and run the stage again");
  return store;
}

std::vector<InputId> CovarianceStore::inputs() const { return inputs_of_manifest(manifest_); }

at::Tensor CovarianceStore::read_rows(const std::string& dataset, int64_t n, int64_t begin,
                                      int64_t end) const {
  const int size = manifest_.at("tensor");
  std::vector<at::Tensor> parts;
  for (int rank = 0; rank < size; ++rank) {
    const auto [first, last] = even_range(n, rank, size);
    const int64_t from = std::max(begin, first), to = std::min(end, last);
    if (from >= to) continue;
    const StoreFile file(manifest_, folder_, file_name(rank, size));
    parts.push_back(file.read_rows(dataset, {last - first, n}, from - first, to - first));
  }
  return at::cat(parts).to(at::kDouble);
}

Covariance CovarianceStore::read(const InputId& id, const Mesh& mesh) const {
  const ManifestEntry entry(manifest_, folder_, id);
  const std::string name = input_name(id);
  const int64_t n = entry.integer("n", 1, kLargestWidth);
  const auto [begin, end] = even_range(n, mesh.tensor_rank(), mesh.tensor_size());
  Covariance covariance;
  covariance.id = id;
  covariance.tokens = entry.integer("tokens", 0, kMostTokens);
  covariance.heldout_tokens = entry.integer("heldout_tokens", 0, kMostTokens);
  covariance.norm_cap = entry.number("norm_cap");
  covariance.top_token_share = entry.number("top_token_share");
  covariance.matrix = {n, begin, read_rows(name + "/matrix", n, begin, end), mesh.tensor};
  if (covariance.heldout_tokens > 0)
    covariance.heldout = {n, begin, read_rows(name + "/heldout", n, begin, end), mesh.tensor};
  if (entry.flag("sink_mean"))
    covariance.sink_mean =
        StoreFile(manifest_, folder_, file_name(0, manifest_.at("tensor"))).read(name + "/sink_mean", {n});
  return covariance;
}

}  // namespace efface
