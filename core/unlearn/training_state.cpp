#include "core/unlearn/training_state.hpp"

#include <algorithm>

#include "core/storage/hdf5_file.hpp"
#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;

constexpr int kFormatVersion = 2;
constexpr const char* kManifest = "manifest.json";

std::string state_file(int rank) { return "state.rank" + std::to_string(rank) + ".h5"; }
fs::path beside(const fs::path& folder, const char* suffix) {
  return folder.parent_path() / (folder.filename().string() + suffix);
}

/// Between the two renames of a publication only the old state is there, under this name.
fs::path complete_folder(const fs::path& folder) {
  if (fs::exists(folder / kManifest)) return folder;
  const fs::path previous = beside(folder, ".previous");
  return fs::exists(previous / kManifest) ? previous : fs::path();
}

struct Region {
  int64_t row_begin, row_end, column_begin, column_end;

  Region within(const Region& other) const {
    return {std::max(row_begin, other.row_begin), std::min(row_end, other.row_end),
            std::max(column_begin, other.column_begin), std::min(column_end, other.column_end)};
  }
  int64_t rows() const { return std::max<int64_t>(0, row_end - row_begin); }
  int64_t columns() const { return std::max<int64_t>(0, column_end - column_begin); }
  at::Tensor of(const at::Tensor& matrix, const Region& matrix_region) const {
    return matrix.narrow(0, row_begin - matrix_region.row_begin, rows())
        .narrow(1, column_begin - matrix_region.column_begin, columns());
  }
};

Region region_of(const ParameterPiece& piece) {
  return {piece.row_begin, piece.row_begin + piece.rows, piece.column_begin,
          piece.column_begin + piece.columns};
}

Region region_on_disk(const Hdf5File& file, const std::string& name) {
  const auto shape = file.shape(name);
  const auto row = static_cast<int64_t>(file.attribute_number(name, "row_begin"));
  const auto column = static_cast<int64_t>(file.attribute_number(name, "column_begin"));
  return {row, row + shape.at(0), column, column + shape.at(1)};
}

}  // namespace

void save_training_state(const fs::path& folder, const Mesh& mesh, const std::vector<ParameterPiece>& pieces,
                         const std::vector<StateVector>& vectors, nlohmann::json manifest) {
  const fs::path fresh = beside(folder, ".tmp"), previous = beside(folder, ".previous");
  if (mesh.is_root()) {
    fs::remove_all(fresh);
    fs::create_directories(fresh);
  }
  mesh.world.barrier();
  auto file = Hdf5File::create(fresh / state_file(mesh.world.rank()));
  for (const ParameterPiece& piece : pieces) {
    if (!piece.primary || piece.rows == 0) continue;
    for (const StateVector& vector : vectors) {
      const std::string name = piece.name + "/" + vector.name;
      file.write(name, piece.view(vector.flat).to(at::kCPU));
      file.write_attribute(name, "row_begin", piece.row_begin);
      file.write_attribute(name, "column_begin", piece.column_begin);
    }
  }
  file.close();
  mesh.world.barrier();
  if (mesh.is_root()) {
    manifest["format"] = "efface training state";
    manifest["version"] = kFormatVersion;
    manifest["ranks"] = mesh.world.size();
    for (const ParameterPiece& piece : pieces)
      manifest["tensors"][piece.name] = {piece.global_rows, piece.global_columns};
    write_text_file(fresh / kManifest, manifest.dump(1));
    if (fs::exists(folder / kManifest)) {
      fs::remove_all(previous);
      fs::rename(folder, previous);
    } else {
      fs::remove_all(folder);
    }
    fs::rename(fresh, folder);
    fs::remove_all(previous);
  }
  mesh.world.barrier();
}

std::optional<nlohmann::json> read_training_manifest(const fs::path& folder, const Mesh& mesh) {
  std::string text;
  if (mesh.is_root())
    if (const fs::path found = complete_folder(folder); !found.empty())
      text = read_text_file(found / kManifest);
  text = mesh.world.broadcast(text, 0);
  if (text.empty()) return std::nullopt;
  const auto manifest = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (manifest.is_discarded() || manifest.value("version", 0) != kFormatVersion)
    throw Error(ErrorClass::storage,
                (folder / kManifest).string() + " is not a training state of this version",
                "delete the folder to train from the start");
  return manifest;
}

void load_training_state(const fs::path& folder, const Mesh& mesh, const std::vector<ParameterPiece>& pieces,
                         const std::vector<StateVector>& vectors, const nlohmann::json& manifest) {
  const fs::path source = complete_folder(folder);
  std::map<std::string, int64_t> loaded;
  for (int rank = 0; rank < manifest.at("ranks").get<int>(); ++rank) {
    const auto file = Hdf5File::open(source / state_file(rank));
    for (const ParameterPiece& piece : pieces) {
      for (const StateVector& vector : vectors) {
        const std::string name = piece.name + "/" + vector.name;
        if (!file.contains(name)) continue;
        const Region here = region_of(piece), there = region_on_disk(file, name), common = here.within(there);
        if (common.rows() == 0 || common.columns() == 0) continue;
        const bool all_rows = common.rows() == there.rows();
        const auto rows = all_rows ? file.read(name)
                                   : file.read_rows(name, common.row_begin - there.row_begin,
                                                    common.row_end - there.row_begin);
        Region read = there;
        read.row_begin = all_rows ? there.row_begin : common.row_begin;
        read.row_end = all_rows ? there.row_end : common.row_end;
        common.of(piece.view(vector.flat), here).copy_(common.of(rows, read));
        loaded[name] += common.rows() * common.columns();
      }
    }
  }
  for (const ParameterPiece& piece : pieces)
    for (const StateVector& vector : vectors)
      if (loaded[piece.name + "/" + vector.name] != piece.rows * piece.columns)
        throw Error(ErrorClass::storage,
                    source.string() + " lacks a part of " + piece.name + "/" + vector.name,
                    "delete the folder to train from the start");
  mesh.world.barrier();
}

}  // namespace efface
