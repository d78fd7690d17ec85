#include <algorithm>
#include <functional>
#include <set>

#include "core/storage/merged_json.hpp"
#include "core/subspace/store_manifest.hpp"
#include "core/subspace/subspace_store.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr const char* kKind = "covariances";
constexpr int64_t kMostParts = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostTokens = std::numeric_limits<int64_t>::max();

std::string file_name(int rank, int size, int64_t part) {
  const std::string name = "covariance-" + std::to_string(rank) + "-of-" + std::to_string(size);
  return name + (part > 0 ? "-part-" + std::to_string(part) : "") + ".h5";
}

// Rounds `matrix` to fp32 in place and gives that fp32 copy.
at::Tensor rounded(BlockRows& matrix) {
  const at::Tensor single = matrix.local.to(at::kFloat);
  matrix.local.copy_(single);
  return single;
}

}  // namespace

CovarianceWriter::CovarianceWriter(std::filesystem::path folder, const Mesh& mesh, nlohmann::json key)
    : folder_(std::move(folder)), mesh_(mesh), key_(std::move(key)) {
  if (mesh.is_root()) std::filesystem::create_directories(folder_);
  mesh.world.barrier();
  if (mesh.world.all_reduce(int64_t{std::filesystem::exists(folder_ / "manifest.json")}, Reduction::max) > 0)
    take_up();
}

// Each rank of the first tensor group looks through its own files; an input is there when all found it whole.
void CovarianceWriter::take_up() {
  constexpr const char* kEverything = "";
  nlohmann::json manifest, bad = nlohmann::json::object();
  const auto look = [&](const std::string& name, const std::function<void()>& check) {
    try {
      check();
    } catch (const Error& error) {
      bad[name] = error.what();
    }
  };
  look(kEverything, [&] { manifest = read_manifest(folder_, kKind); });
  const bool usable = manifest.is_object() && manifest.at("key") == key_ &&
                      manifest.value("tensor", nlohmann::json()) == mesh_.tensor_size();
  if (usable)
    for (const InputId& id : inputs_of_manifest(manifest))
      look(input_name(id), [&] { verify(manifest, id); });
  bad = merged_over_ranks(mesh_.world, bad);
  for (const auto& [name, what] : bad.items()) notes_.push_back(what);
  if (!usable || bad.contains(kEverything)) return;
  for (const auto& [name, entry] : manifest.at("inputs").items()) {
    if (bad.contains(name)) continue;
    part_ = std::max(part_, entry.at("part").get<int64_t>() + 1);
    entries_[name] = entry;
  }
  files_ = manifest.at("files");
}

void CovarianceWriter::verify(const nlohmann::json& manifest, const InputId& id) const {
  const ManifestEntry entry(manifest, folder_, id);
  const std::string name = input_name(id);
  const int64_t part = entry.integer("part", 0, kMostParts);
  if (mesh_.data_rank() != 0) return;
  const StoreFile file(manifest, folder_, file_name(mesh_.tensor_rank(), mesh_.tensor_size(), part));
  file.verify(name + "/matrix");
  if (entry.integer("heldout_tokens", 0, kMostTokens) > 0) file.verify(name + "/heldout");
  if (entry.flag("sink_mean")) file.verify(name + "/sink_mean");
}

std::vector<InputId> CovarianceWriter::published() const {
  return inputs_of_manifest({{"inputs", entries_}});
}

void CovarianceWriter::write(Covariance& covariance) {
  const std::string name = input_name(covariance.id);
  const bool heldout = covariance.heldout_tokens > 0, sink = covariance.sink_mean.defined();
  const at::Tensor matrix = rounded(covariance.matrix);
  const at::Tensor heldout_matrix = heldout ? rounded(covariance.heldout) : at::Tensor();
  if (mesh_.data_rank() == 0) {
    if (!file_)
      file_ = std::make_shared<StoreFileWriter>(folder_ /
                                                file_name(mesh_.tensor_rank(), mesh_.tensor_size(), part_));
    file_->write(name + "/matrix", matrix);
    if (heldout) file_->write(name + "/heldout", heldout_matrix);
    if (sink) file_->write(name + "/sink_mean", covariance.sink_mean);
  }
  entries_[name] = {{"n", covariance.matrix.n},
                    {"part", part_},
                    {"tokens", covariance.tokens},
                    {"heldout_tokens", covariance.heldout_tokens},
                    {"norm_cap", covariance.norm_cap},
                    {"top_token_share", covariance.top_token_share},
                    {"sink_mean", sink}};
}

void CovarianceWriter::publish() { write_manifest_of(false); }

void CovarianceWriter::finish() { write_manifest_of(true); }

void CovarianceWriter::write_manifest_of(bool whole) {
  const nlohmann::json mine = file_ ? file_->close() : nlohmann::json::object();
  file_.reset();
  ++part_;
  files_.update(merged_over_ranks(mesh_.world, mine));
  const std::vector<std::string> unused = drop_unused_files();
  if (mesh_.is_root()) {
    nlohmann::json manifest = make_manifest(kKind, key_, entries_, files_);
    manifest["tensor"] = mesh_.tensor_size();
    manifest["whole"] = whole;
    write_manifest(folder_, manifest);
    std::error_code ignored;
    for (const auto& file : unused) std::filesystem::remove(folder_ / file, ignored);
  }
  mesh_.world.barrier();
}

// Files of parts whose inputs have all been written again.
std::vector<std::string> CovarianceWriter::drop_unused_files() {
  std::set<std::string> used;
  for (const auto& [name, entry] : entries_.items())
    for (int rank = 0; rank < mesh_.tensor_size(); ++rank)
      used.insert(file_name(rank, mesh_.tensor_size(), entry.at("part")));
  std::vector<std::string> unused;
  for (const auto& [file, listed] : files_.items())
    if (used.count(file) == 0) unused.push_back(file);
  for (const auto& file : unused) files_.erase(file);
  return unused;
}

CovarianceStore CovarianceStore::open(const std::filesystem::path& folder) {
  CovarianceStore store;
  store.folder_ = folder;
  store.manifest_ = read_manifest(folder, kKind);
  if (store.manifest_["whole"] != true)
    throw Error(ErrorClass::storage, folder.string() + " is not whole: the run that wrote it was ended",
                "run its stage again: it goes on from there");
  const auto& tensor = store.manifest_["tensor"];
  if (!tensor.is_number_unsigned() || tensor < 1)
    throw Error(ErrorClass::storage, (folder / "manifest.json").string() + " does not say how it is sharded",
                "delete the folder and run the stage again");
  return store;
}

std::vector<InputId> CovarianceStore::inputs() const { return inputs_of_manifest(manifest_); }

at::Tensor CovarianceStore::read_rows(const std::string& dataset, int64_t part, int64_t n, int64_t begin,
                                      int64_t end) const {
  const int size = manifest_.at("tensor");
  std::vector<at::Tensor> parts;
  for (int rank = 0; rank < size; ++rank) {
    const auto [first, last] = even_range(n, rank, size);
    const int64_t from = std::max(begin, first), to = std::min(end, last);
    if (from >= to) continue;
    const StoreFile file(manifest_, folder_, file_name(rank, size, part));
    parts.push_back(file.read_rows(dataset, {last - first, n}, from - first, to - first));
  }
  return at::cat(parts).to(at::kDouble);
}

Covariance CovarianceStore::read(const InputId& id, const Mesh& mesh) const {
  const ManifestEntry entry(manifest_, folder_, id);
  const std::string name = input_name(id);
  const int64_t n = entry.integer("n", 1, kLargestWidth);
  const int64_t part = entry.integer("part", 0, kMostParts);
  const auto [begin, end] = even_range(n, mesh.tensor_rank(), mesh.tensor_size());
  Covariance covariance;
  covariance.id = id;
  covariance.tokens = entry.integer("tokens", 0, kMostTokens);
  covariance.heldout_tokens = entry.integer("heldout_tokens", 0, kMostTokens);
  covariance.norm_cap = entry.number("norm_cap");
  covariance.top_token_share = entry.number("top_token_share");
  covariance.matrix = {n, begin, read_rows(name + "/matrix", part, n, begin, end), mesh.tensor};
  if (covariance.heldout_tokens > 0)
    covariance.heldout = {n, begin, read_rows(name + "/heldout", part, n, begin, end), mesh.tensor};
  if (entry.flag("sink_mean"))
    covariance.sink_mean = StoreFile(manifest_, folder_, file_name(0, manifest_.at("tensor"), part))
                               .read(name + "/sink_mean", {n});
  return covariance;
}

}  // namespace efface
