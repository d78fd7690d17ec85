#include "core/storage/safetensors_shards.hpp"

#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/storage/mapped_file.hpp"
#include "core/storage/run_directory.hpp"

namespace efface {
namespace {

using Declarations = std::vector<SafetensorsWriter::Declaration>;

int64_t bytes_of(const SafetensorsWriter::Declaration& tensor) {
  return static_cast<int64_t>(c10::elementSize(tensor.dtype)) * c10::multiply_integers(tensor.shape);
}

std::string shard_name(size_t shard, size_t shards) {
  if (shards <= 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return name;
}

}  // namespace

int64_t parse_shard_size(const std::string& text) {
  const std::pair<const char*, double> units[] = {{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}};
  for (const auto& [unit, bytes] : units) {
    if (!text.ends_with(unit)) continue;
    double number = 0;
    const char* end = text.data() + text.size() - 2;
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end || !(number > 0) || number * bytes >= 1e18) break;
    return static_cast<int64_t>(std::max(1.0, number * bytes));
  }
  throw Error(ErrorClass::usage, "'" + text + "' is not a size", "write it like 5GB or 500MB");
}

std::vector<std::vector<size_t>> plan_shards(const Declarations& tensors, int64_t largest) {
  std::vector<std::vector<size_t>> shards;
  std::vector<size_t> open;
  int64_t open_bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t bytes = bytes_of(tensors[i]);
    if (bytes > largest) {
      shards.push_back({i});
      continue;
    }
    if (open_bytes + bytes > largest) {
      shards.push_back(std::exchange(open, {}));
      open_bytes = 0;
    }
    open.push_back(i);
    open_bytes += bytes;
  }
  if (!open.empty()) shards.push_back(std::move(open));
  return shards;
}

struct ShardedSafetensorsWriter::State {
  struct Shard {
    std::string file;
    Declarations tensors;
    size_t written = 0;
    std::unique_ptr<SafetensorsWriter> writer;  // while the file is being written
  };
  std::filesystem::path folder;
  std::vector<Shard> shards;
  std::vector<size_t> shard_of;  // of each declared tensor
  size_t next = 0;
  int64_t bytes = 0, parameters = 0;
};

ShardedSafetensorsWriter::ShardedSafetensorsWriter(const std::filesystem::path& folder,
                                                   Declarations declarations, int64_t largest)
    : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->shard_of.resize(declarations.size());
  const auto plan = plan_shards(declarations, largest);
  for (size_t shard = 0; shard < plan.size(); ++shard) {
    State::Shard& made = state_->shards.emplace_back();
    made.file = shard_name(shard, plan.size());
    for (const size_t i : plan[shard]) {
      state_->shard_of[i] = shard;
      state_->bytes += bytes_of(declarations[i]);
      state_->parameters += c10::multiply_integers(declarations[i].shape);
      made.tensors.push_back(std::move(declarations[i]));
    }
  }
}

ShardedSafetensorsWriter::~ShardedSafetensorsWriter() = default;

void ShardedSafetensorsWriter::append(const at::Tensor& tensor) {
  if (state_->next == state_->shard_of.size())
    throw Error(ErrorClass::storage, state_->folder.string() + ": more tensors than declared");
  State::Shard& shard = state_->shards[state_->shard_of[state_->next++]];
  if (!shard.writer)
    shard.writer = std::make_unique<SafetensorsWriter>(state_->folder / shard.file, shard.tensors);
  shard.writer->append(tensor);
  if (++shard.written < shard.tensors.size()) return;
  shard.writer->close();
  shard.writer.reset();
}

void ShardedSafetensorsWriter::close() {
  if (state_->next < state_->shard_of.size()) {
    const State::Shard& shard = state_->shards[state_->shard_of[state_->next]];
    throw Error(ErrorClass::storage, (state_->folder / shard.file).string() + ": tensor " +
                                         shown(shard.tensors[shard.written].name) + " is missing");
  }
  if (state_->shards.size() <= 1) return;
  nlohmann::json files = nlohmann::json::object();
  for (const auto& shard : state_->shards)
    for (const auto& tensor : shard.tensors) files[tensor.name] = shard.file;
  const nlohmann::json index = {
      {"metadata", {{"total_parameters", state_->parameters}, {"total_size", state_->bytes}}},
      {"weight_map", files}};
  write_text_file(state_->folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace efface
