#include "core/subspace/stream_checkpoint.hpp"

#include <algorithm>
#include <utility>

#include "core/storage/merged_json.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "partial covariances";

std::string sums_file(int64_t save, int rank) {
  return "sums-" + std::to_string(save) + "-" + std::to_string(rank) + ".h5";
}

std::string dataset_of(size_t pass) { return "pass-" + std::to_string(pass); }

nlohmann::json names_of(const std::vector<InputId>& inputs) {
  nlohmann::json names = nlohmann::json::array();
  for (const InputId& id : inputs) names.push_back(input_name(id));
  return names;
}

}  // namespace

StreamCheckpoint::StreamCheckpoint(fs::path folder, const Mesh& mesh, std::vector<int64_t> tokens)
    : folder_(std::move(folder)),
      mesh_(mesh),
      tokens_(std::move(tokens)),
      key_({{"tensor", mesh.tensor_size()}, {"data", mesh.data_size()}, {"passes", tokens_.size()}}) {
  read();
}

// Every rank reads for itself, and none goes on with what another could not read.
void StreamCheckpoint::read() {
  const bool there = fs::exists(folder_ / "manifest.json");
  if (mesh_.world.all_reduce(int64_t{there}, Reduction::max) == 0) return;
  nlohmann::json found;
  const auto errors = errors_of_ranks(mesh_.world, [&] { found = read_manifest(folder_, kKind); });
  notes_.insert(notes_.end(), errors.begin(), errors.end());
  if (!errors.empty() || found.at("key") != key_) return;
  for (const auto& [layer, segments] : found.at("boundaries").items())
    boundaries_[std::stoi(layer)] = segments.get<std::vector<size_t>>();
  sums_ = found.at("sums");
  manifest_ = std::move(found);
}

std::vector<std::string> StreamCheckpoint::take_notes() { return std::exchange(notes_, {}); }

std::string StreamCheckpoint::hidden_file(int layer, size_t segment) const {
  return "hidden-" + std::to_string(layer) + "-data-" + std::to_string(mesh_.data_rank()) + "-" +
         std::to_string(segment) + ".h5";
}

const StoreFile& StreamCheckpoint::opened(const std::string& file) {
  const auto found = opened_.find(file);
  return found != opened_.end() ? found->second
                                : opened_.emplace(file, StoreFile(manifest_, folder_, file)).first->second;
}

// Can the hidden states of the first `passes` passes be read on every rank?
bool StreamCheckpoint::is_whole(int layer, size_t passes) {
  const auto& segments = boundaries_.at(layer);
  if (std::find(segments.begin(), segments.end(), passes) == segments.end()) return false;
  const auto errors = errors_of_ranks(mesh_.world, [&] {
    if (mesh_.tensor_rank() != 0) return;
    size_t pass = 0;
    for (size_t segment = 0; pass < passes; ++segment)
      for (const StoreFile& file = opened(hidden_file(layer, segment)); pass < segments[segment]; ++pass)
        if (tokens_[pass] > 0) file.verify(dataset_of(pass));
  });
  notes_.insert(notes_.end(), errors.begin(), errors.end());
  return errors.empty();
}

int StreamCheckpoint::boundary_below(int layer) {
  for (auto boundary = boundaries_.upper_bound(layer); boundary != boundaries_.begin();) {
    --boundary;
    if (is_whole(boundary->first, tokens_.size())) return boundary->first;
  }
  return 0;
}

bool StreamCheckpoint::has_sums(const std::vector<InputId>& group, int begin) const {
  return !sums_.is_null() && sums_.at("begin") == begin && sums_.at("inputs") == names_of(group);
}

std::optional<size_t> StreamCheckpoint::restore(const std::vector<InputId>& group,
                                                CovarianceAccumulator& accumulator) {
  const auto pass = sums_.at("pass").get<size_t>();
  const auto above = boundaries_.find(group.back().layer + 1);
  if (above != boundaries_.end() && !is_whole(above->first, pass)) return std::nullopt;
  const auto errors = errors_of_ranks(mesh_.world, [&] {
    accumulator.restore(StoreFile(manifest_, folder_, sums_file(sums_.at("save"), mesh_.world.rank())));
  });
  notes_.insert(notes_.end(), errors.begin(), errors.end());
  if (!errors.empty()) return std::nullopt;
  return pass;
}

void StreamCheckpoint::make_folder() const {
  if (mesh_.is_root()) fs::create_directories(folder_);
  mesh_.world.barrier();
}

void StreamCheckpoint::begin_boundary(int layer, size_t pass) {
  make_folder();
  open_layer_ = layer;
  auto& segments = boundaries_[layer];
  while (!segments.empty() && segments.back() > pass) segments.pop_back();
}

void StreamCheckpoint::write_hidden(size_t pass, const at::Tensor& hidden) {
  if (mesh_.tensor_rank() != 0) return;
  if (!segment_) segment_.emplace(folder_ / hidden_file(open_layer_, boundaries_.at(open_layer_).size()));
  if (hidden.size(0) > 0) segment_->write(dataset_of(pass), hidden.cpu());
}

// Ends the open segment, if any, before `passes`.
void StreamCheckpoint::seal(size_t passes) {
  if (segment_) new_files_.update(segment_->close());
  segment_.reset();
  if (open_layer_ == 0) return;
  auto& segments = boundaries_.at(open_layer_);
  if (segments.empty() || segments.back() < passes) segments.push_back(passes);
}

void StreamCheckpoint::commit() {
  nlohmann::json files = merged_over_ranks(mesh_.world, new_files_);
  new_files_ = nlohmann::json::object();
  const nlohmann::json old = manifest_.is_object() ? manifest_.at("files") : nlohmann::json::object();
  nlohmann::json boundaries = nlohmann::json::object();
  for (const auto& [layer, segments] : boundaries_)
    if (!segments.empty()) boundaries[std::to_string(layer)] = segments;
  // Files that nothing refers to any more leave the list, then the disk.
  std::vector<std::string> prefixes;
  if (!sums_.is_null()) prefixes.push_back("sums-" + sums_.at("save").dump() + "-");
  for (const auto& [layer, segments] : boundaries.items()) prefixes.push_back("hidden-" + layer + "-");
  const auto counts = [&](const std::string& file) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](const std::string& prefix) { return file.rfind(prefix, 0) == 0; });
  };
  std::vector<std::string> unused;
  for (const auto& [file, entry] : old.items()) {
    if (!counts(file))
      unused.push_back(file);
    else if (!files.contains(file))
      files[file] = entry;
  }
  manifest_ = make_manifest(kKind, key_, nlohmann::json::object(), std::move(files));
  manifest_["boundaries"] = std::move(boundaries);
  manifest_["sums"] = sums_;
  opened_.clear();
  if (mesh_.is_root()) {
    write_manifest(folder_, manifest_);
    std::error_code ignored;
    for (const auto& file : unused) fs::remove(folder_ / file, ignored);
  }
  mesh_.world.barrier();
}

void StreamCheckpoint::save(const std::vector<InputId>& group, int begin, size_t pass,
                            const CovarianceAccumulator& accumulator) {
  make_folder();
  const int64_t save = sums_.is_null() ? 0 : sums_.at("save").get<int64_t>() + 1;
  StoreFileWriter file(folder_ / sums_file(save, mesh_.world.rank()));
  accumulator.save(file);
  new_files_.update(file.close());
  seal(pass);
  sums_ = {{"inputs", names_of(group)}, {"begin", begin}, {"pass", pass}, {"save", save}};
  commit();
}

void StreamCheckpoint::end_boundary() {
  seal(tokens_.size());
  open_layer_ = 0;
  commit();
}

at::Tensor StreamCheckpoint::read_hidden(int layer, size_t pass, int64_t width, at::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(dtype).device(mesh_.device);
  const int64_t tokens = tokens_[pass];
  if (tokens == 0) return at::empty({0, width}, options);
  at::Tensor hidden = at::empty({tokens, width}, options);
  if (mesh_.tensor_rank() == 0) {
    const auto& segments = boundaries_.at(layer);
    const auto segment = std::upper_bound(segments.begin(), segments.end(), pass) - segments.begin();
    hidden.copy_(
        opened(hidden_file(layer, static_cast<size_t>(segment))).read(dataset_of(pass), {tokens, width}));
  }
  if (mesh_.tensor_size() > 1) mesh_.tensor.broadcast(hidden, 0);
  return hidden;
}

void StreamCheckpoint::keep_only(int layer) {
  sums_ = nullptr;
  for (auto boundary = boundaries_.begin(); boundary != boundaries_.end();)
    boundary = boundary->first == layer ? std::next(boundary) : boundaries_.erase(boundary);
  commit();
}

void StreamCheckpoint::remove() {
  opened_.clear();
  mesh_.world.barrier();
  if (mesh_.is_root()) fs::remove_all(folder_);
  mesh_.world.barrier();
}

}  // namespace efface
