#include "core/storage/merged_json.hpp"
#include "core/subspace/store_manifest.hpp"
#include "core/subspace/subspace_store.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr const char* kKind = "bases";

}  // namespace

BasisWriter::BasisWriter(std::filesystem::path folder, const Communicator& world)
    : folder_(std::move(folder)), world_(world), file_name_("bases-" + std::to_string(world.rank()) + ".h5") {
  std::filesystem::create_directories(folder_);
}

void BasisWriter::write(const Basis& basis) {
  const std::string name = input_name(basis.id);
  if (!file_) file_ = std::make_shared<StoreFileWriter>(folder_ / file_name_);
  int64_t columns = -1;
  if (basis.vectors.defined()) {
    columns = basis.vectors.size(1);
    file_->write(name + "/vectors",
                 is_sharded(basis.id.input) ? basis.vectors : basis.vectors.t().contiguous());
    file_->write(name + "/weights", basis.weights);
  }
  file_->write(name + "/eigenvalues", basis.eigenvalues);
  entries_[name] = {{"file", file_name_},
                    {"n", basis.n},
                    {"k", basis.k},
                    {"columns", columns},
                    {"eigenvalues", basis.eigenvalues.numel()},
                    {"complement", basis.complement}};
}

void BasisWriter::finish(const nlohmann::json& key) {
  const nlohmann::json mine = {{"inputs", entries_},
                               {"files", file_ ? file_->close() : nlohmann::json::object()}};
  file_.reset();
  nlohmann::json all = merged_over_ranks(world_, mine);
  if (world_.rank() == 0)
    write_manifest(folder_, make_manifest(kKind, key, std::move(all["inputs"]), std::move(all["files"])));
  world_.barrier();
}

BasisStore BasisStore::open(const std::filesystem::path& folder) {
  BasisStore store;
  store.folder_ = folder;
  store.manifest_ = read_manifest(folder, kKind);
  return store;
}

std::vector<InputId> BasisStore::inputs() const { return inputs_of_manifest(manifest_); }

Basis BasisStore::read(const InputId& id) const { return read_part(id, 0, 1); }

Basis BasisStore::read_slice(const InputId& id, const Mesh& mesh) const {
  return read_part(id, mesh.tensor_rank(), mesh.tensor_size());
}

Basis BasisStore::read_part(const InputId& id, int rank, int size) const {
  const ManifestEntry entry(manifest_, folder_, id);
  const std::string name = input_name(id);
  const StoreFile file(manifest_, folder_, entry.text("file"));
  Basis basis;
  basis.id = id;
  basis.n = entry.integer("n", 1, kLargestWidth);
  basis.k = entry.integer("k", 0, basis.n);
  basis.complement = entry.flag("complement");
  basis.eigenvalues = file.read(name + "/eigenvalues", {entry.integer("eigenvalues", 0, basis.n)});
  const int64_t columns = entry.integer("columns", -1, basis.n);
  if (columns < 0) return basis;

  basis.weights = file.read(name + "/weights", {columns});
  const bool sharded = is_sharded(id.input);
  const int64_t rows = sharded ? basis.n : columns;
  const auto [begin, end] = even_range(rows, rank, size);
  const at::Tensor vectors =
      file.read_rows(name + "/vectors", {rows, sharded ? columns : basis.n}, begin, end);
  basis.vectors = sharded ? vectors : vectors.t();
  if (!sharded) basis.weights = basis.weights.narrow(0, begin, end - begin);
  return basis;
}

}  // namespace efface
