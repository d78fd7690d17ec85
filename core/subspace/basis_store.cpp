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
  if (!file_) file_ = Hdf5File::create(folder_ / file_name_);
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
                    {"complement", basis.complement}};
}

void BasisWriter::finish(const nlohmann::json& key) {
  if (file_) file_->close();
  file_.reset();
  nlohmann::json inputs = nlohmann::json::object();
  for (int rank = 0; rank < world_.size(); ++rank)
    inputs.update(nlohmann::json::parse(world_.broadcast(entries_.dump(), rank)));
  if (world_.rank() == 0) write_manifest(folder_, make_manifest(kKind, key, std::move(inputs)));
  world_.barrier();
}

BasisStore BasisStore::open(const std::filesystem::path& folder) {
  BasisStore store;
  store.folder_ = folder;
  store.manifest_ = read_manifest(folder, kKind);
  return store;
}

std::vector<InputId> BasisStore::inputs() const { return inputs_of_manifest(manifest_); }

const nlohmann::json& BasisStore::entry(const InputId& id) const {
  return manifest_entry(manifest_, folder_, id);
}

Basis BasisStore::read(const InputId& id) const { return read_part(id, 0, 1); }

Basis BasisStore::read_slice(const InputId& id, const Mesh& mesh) const {
  return read_part(id, mesh.tensor_rank(), mesh.tensor_size());
}

Basis BasisStore::read_part(const InputId& id, int rank, int size) const {
  const nlohmann::json& entry = this->entry(id);
  const std::string name = input_name(id);
  const Hdf5File file = Hdf5File::open(folder_ / entry.at("file").get<std::string>());
  Basis basis;
  basis.id = id;
  basis.n = entry.at("n");
  basis.k = entry.at("k");
  basis.complement = entry.at("complement");
  basis.eigenvalues = file.read(name + "/eigenvalues");
  const auto columns = entry.at("columns").get<int64_t>();
  if (columns < 0) return basis;

  basis.weights = file.read(name + "/weights");
  const bool sharded = is_sharded(id.input);
  const auto [begin, end] = even_range(sharded ? basis.n : columns, rank, size);
  const at::Tensor rows =
      size == 1 ? file.read(name + "/vectors") : file.read_rows(name + "/vectors", begin, end);
  basis.vectors = sharded ? rows : rows.t();
  if (!sharded) basis.weights = basis.weights.narrow(0, begin, end - begin);
  return basis;
}

}  // namespace efface
