#include "core/unlearn/training_state.hpp"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <regex>
#include <sstream>

#include "core/storage/merged_json.hpp"
#include "core/storage/pending_file.hpp"
#include "core/subspace/store_manifest.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kKind = "training state";

std::string name_of(const Json& description) {
  std::ostringstream name;
  name << "step-" << std::setw(8) << std::setfill('0') << description.at("step").get<int64_t>();
  return name.str();
}

/// The names of the published checkpoints, the newest first.
std::vector<std::string> checkpoint_names(const fs::path& folder) {
  static const std::regex published(R"(step-\d{8,})");
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (std::regex_match(entry.path().filename().string(), published))
      names.push_back(entry.path().filename().string());
  std::sort(names.rbegin(), names.rend());
  return names;
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

Region region_on_disk(const Json& place) {
  const auto row = place.at(0).get<int64_t>(), rows = place.at(1).get<int64_t>(),
             column = place.at(2).get<int64_t>(), columns = place.at(3).get<int64_t>();
  return {row, row + rows, column, column + columns};
}

/// Writes a rank's file and reads it back. @return {"files": what a manifest lists, "parts": where each lies}
Json write_part(const fs::path& file, const std::vector<TrainingSnapshot::Part>& parts) {
  StoreFileWriter writer(file);
  Json places = Json::object();
  for (const auto& part : parts) {
    writer.write(part.name, part.matrix);
    places[part.name] = {part.row_begin, part.matrix.size(0), part.column_begin, part.matrix.size(1)};
  }
  const Json listed = {{"files", writer.close()}};
  const StoreFile written(listed, file.parent_path(), file.filename().string());
  for (const auto& part : parts) written.read(part.name, part.matrix.sizes().vec());
  return {{"files", listed["files"]}, {"parts", {{file.filename().string(), std::move(places)}}}};
}

/// This rank's parts of one checkpoint into `vectors`. Throws Error(storage) for what is damaged.
void load(const fs::path& checkpoint, const Json& manifest, const std::vector<ParameterPiece>& pieces,
          const std::vector<StateVector>& vectors) {
  std::map<std::string, int64_t> loaded;
  for (const auto& [name, places] : manifest.at("key").at("parts").items()) {
    const StoreFile file(manifest, checkpoint, name);
    for (const ParameterPiece& piece : pieces)
      for (const StateVector& vector : vectors) {
        const std::string dataset = piece.name + "/" + vector.name;
        if (!places.contains(dataset)) continue;
        const Region here = region_of(piece), there = region_on_disk(places.at(dataset));
        const Region common = here.within(there);
        if (common.rows() == 0 || common.columns() == 0) continue;
        Region read = there;
        read.row_begin = common.row_begin;
        read.row_end = common.row_end;
        const auto rows =
            file.read_rows(dataset, {there.rows(), there.columns()}, common.row_begin - there.row_begin,
                           common.row_end - there.row_begin);
        common.of(piece.view(vector.flat), here).copy_(common.of(rows, read));
        loaded[dataset] += common.rows() * common.columns();
      }
  }
  for (const ParameterPiece& piece : pieces)
    for (const StateVector& vector : vectors)
      if (loaded[piece.name + "/" + vector.name] != piece.rows * piece.columns)
        throw Error(ErrorClass::storage,
                    checkpoint.string() + " lacks a part of " + piece.name + "/" + vector.name);
}

}  // namespace

TrainingSnapshot take_snapshot(const std::vector<ParameterPiece>& pieces,
                               const std::vector<StateVector>& vectors, Json description) {
  TrainingSnapshot snapshot;
  for (const ParameterPiece& piece : pieces) {
    description["tensors"][piece.name] = {piece.global_rows, piece.global_columns};
    if (!piece.primary || piece.rows == 0) continue;
    for (const StateVector& vector : vectors)
      snapshot.parts.push_back({piece.name + "/" + vector.name,
                                piece.view(vector.flat)
                                    .to(at::kCPU, vector.flat.scalar_type(),
                                        /*non_blocking=*/false, /*copy=*/true),
                                piece.row_begin, piece.column_begin});
  }
  snapshot.description = std::move(description);
  return snapshot;
}

CheckpointWriter::CheckpointWriter(fs::path folder, const Mesh& mesh, int64_t kept)
    : folder_(std::move(folder)), mesh_(mesh), kept_(kept) {
  std::error_code ignored;
  if (mesh_.is_root())
    for (const auto& entry : fs::directory_iterator(folder_, ignored))  // what a killed run left
      if (entry.path().filename().string().starts_with(".step-")) fs::remove_all(entry.path(), ignored);
  mesh_.world.barrier();
}

void CheckpointWriter::begin(TrainingSnapshot snapshot) {
  description_ = std::move(snapshot.description);
  fresh_ = folder_ / std::string(".").append(name_of(description_)).append(".tmp");
  const fs::path file = fresh_ / ("state.rank" + std::to_string(mesh_.world.rank()) + ".h5");
  writing_ = std::async(std::launch::async, [file, parts = std::move(snapshot.parts)] {
    fs::create_directories(file.parent_path());
    return write_part(file, parts);
  });
}

bool CheckpointWriter::written() const {
  return !pending() || writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void CheckpointWriter::publish() {
  if (!pending()) return;
  Json mine;
  const auto unwritten = errors_of_ranks(mesh_.world, [&] { mine = writing_.get(); });
  if (!unwritten.empty()) throw Error(ErrorClass::storage, unwritten.front());
  Json all = merged_over_ranks(mesh_.world, mine);
  const auto unpublished = errors_of_ranks(mesh_.world, [&] {
    if (!mesh_.is_root()) return;
    description_["parts"] = std::move(all["parts"]);
    write_manifest(fresh_, make_manifest(kKind, description_, Json::object(), std::move(all["files"])));
    const fs::path target = folder_ / name_of(description_);
    fs::remove_all(target);
    fs::rename(fresh_, target);
    sync_folder(folder_);
    const auto names = checkpoint_names(folder_);
    for (size_t i = static_cast<size_t>(kept_); i < names.size(); ++i) fs::remove_all(folder_ / names[i]);
  });
  if (!unpublished.empty()) throw Error(ErrorClass::storage, unpublished.front());
}

std::optional<RestoredState> load_training_state(const fs::path& folder, const Mesh& mesh,
                                                 const std::vector<ParameterPiece>& pieces,
                                                 const std::vector<StateVector>& vectors,
                                                 const std::function<void(const Json&)>& check) {
  const auto names =
      Json::parse(mesh.world.broadcast(mesh.is_root() ? Json(checkpoint_names(folder)).dump() : "", 0))
          .get<std::vector<std::string>>();
  RestoredState restored;
  for (const std::string& name : names) {
    const fs::path checkpoint = folder / name;
    Json manifest;
    std::vector<StateVector> fresh;
    for (const StateVector& vector : vectors) fresh.push_back({vector.name, at::empty_like(vector.flat)});
    auto problems = errors_of_ranks(mesh.world, [&] { manifest = read_manifest(checkpoint, kKind); });
    if (problems.empty()) {
      check(manifest.at("key"));
      problems = errors_of_ranks(mesh.world, [&] { load(checkpoint, manifest, pieces, fresh); });
    }
    if (problems.empty()) {
      for (size_t i = 0; i < vectors.size(); ++i) vectors[i].flat.detach().copy_(fresh[i].flat);
      restored.description = std::move(manifest["key"]);
      return restored;
    }
    restored.damaged.push_back(problems.front());
    if (mesh.is_root()) fs::remove_all(checkpoint);
    mesh.world.barrier();
  }
  if (restored.damaged.empty()) return std::nullopt;
  return restored;
}

}  // namespace efface
