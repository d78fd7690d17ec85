#include "core/storage/run_directory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <optional>
#include <sstream>

#include "core/storage/run_files.hpp"
#include "core/storage/run_lock.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Runs `action` on the root; where it fails, every rank throws the same Error. Collective.
template <typename Action>
void on_root(const Communicator& world, Action action) {
  std::string problem;
  if (world.rank() == 0) {
    try {
      action();
    } catch (const std::exception& error) {
      problem = error.what();
    }
  }
  problem = world.broadcast(problem, 0);
  if (!problem.empty()) throw Error(ErrorClass::storage, problem);
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ErrorClass::storage, folder.string() + ": cannot be made: " + error.message());
}

fs::path folder_of(const fs::path& run, const std::string& stage) {
  const fs::path name = fs::path(stage).lexically_normal();
  if (stage.empty() || name.is_absolute() || *name.begin() == ".." || name == ".")
    throw Error(ErrorClass::usage, "'" + stage + "' is not the name of a stage");
  return run / name;
}

constexpr const char* kChecksum = "crc32c";

uint32_t checksum_of(Json done) {
  done.erase(kChecksum);
  const std::string text = done.dump();
  return crc32c(text.data(), text.size());
}

/// done.json, or nothing where it is missing or not whole; `damaged` tells which.
std::optional<Json> read_done(const fs::path& folder, bool* damaged = nullptr) {
  const fs::path file = folder / "done.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  Json done = Json::parse(read_text_file(file), nullptr, /*allow_exceptions=*/false);
  const bool whole = done.is_object() && done.contains("key") && done.contains("summary") &&
                     done.contains(kChecksum) && done[kChecksum] == checksum_of(done);
  if (damaged) *damaged = !whole;
  return whole ? std::optional(std::move(done)) : std::nullopt;
}

std::string shortened(const Json& value) {
  constexpr size_t kLongest = 60;
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

std::string first_difference(const Json& then, const Json& now) {
  const Json changes = Json::diff(then, now);
  if (changes.empty()) return "";
  const std::string path = changes[0]["path"];
  const Json::json_pointer pointer(path);
  const auto at = [&](const Json& key) {
    return key.contains(pointer) ? shortened(key.at(pointer)) : "nothing";
  };
  return (path.empty() ? "the key" : path) + " was " + at(then) + ", is " + at(now);
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// A run that was killed while it wrote may have left half a line, and a power cut may have left worse.
/// @return what was dropped
std::vector<std::string> mend_metrics(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  const std::string text = read_text_file(file);
  std::vector<std::string> problems;
  std::string kept;
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (Json::accept(line))
      kept += line + "\n";
    else
      problems.push_back(file.string() + ":" + std::to_string(number) + ": is not whole, and is dropped");
  }
  if (kept != text) write_text_file(file, kept);
  return problems;
}

}  // namespace

RunDirectory::RunDirectory(const fs::path& folder, const Communicator& world) : path_(folder), world_(world) {
  on_root(world_, [&] {
    make_folder(path_);
    lock_ = std::make_shared<RunLock>(path_);
    problems_ = mend_metrics(path_ / "metrics.jsonl");
  });
}

fs::path RunDirectory::stage_folder(const std::string& stage) const {
  const fs::path folder = folder_of(path_, stage);
  make_folder(folder);
  return folder;
}

bool RunDirectory::is_done(const std::string& stage, const Json& key) const {
  bool done = false;
  on_root(world_, [&] { done = why_stale(stage, key).empty(); });
  return world_.broadcast(done ? "done" : "", 0) == "done";
}

std::string RunDirectory::why_stale(const std::string& stage, const Json& key) const {
  bool damaged = false;
  const auto done = read_done(folder_of(path_, stage), &damaged);
  if (damaged) return (folder_of(path_, stage) / "done.json").string() + " is damaged";
  if (!done) return "never run";
  // As text, so that what JSON cannot hold (NaN) compares as it was stored.
  const std::string canonical = key.dump();
  if (done->value("hash", "") == hash_text(canonical) && done->at("key").dump() == canonical) return "";
  const std::string difference = first_difference(done->at("key"), Json::parse(canonical));
  return difference.empty() ? "its done.json does not fit its own key" : difference;
}

void RunDirectory::mark_done(const std::string& stage, const Json& key, const Json& summary) {
  world_.barrier();
  const Json files = list_files(stage_folder(stage), {"done.json", "started.json", "checkpoint"}, world_);
  on_root(world_, [&] {
    Json done = {{"stage", stage}, {"finished", utc_now()}, {"hash", hash_text(key.dump())},
                 {"key", key},     {"summary", summary},    {"files", files}};
    done = Json::parse(done.dump());  // what JSON cannot hold, NaN, as it will be read
    done[kChecksum] = checksum_of(done);
    write_text_file(stage_folder(stage) / "done.json", done.dump(2) + "\n");
  });
}

std::map<std::string, std::string> RunDirectory::damaged(const std::string& stage) const {
  const fs::path folder = folder_of(path_, stage);
  Json listed;
  on_root(world_, [&] {
    if (const auto done = read_done(folder)) listed = done->value("files", Json::object());
  });
  return damaged_files(folder, Json::parse(world_.broadcast(listed.dump(), 0)), world_);
}

Json RunDirectory::summary(const std::string& stage) const {
  const auto done = read_done(folder_of(path_, stage));
  if (!done) throw Error(ErrorClass::storage, (path_ / stage).string() + ": this stage is not done");
  return done->at("summary");
}

void RunDirectory::clear(const std::string& stage, const std::vector<std::string>& kept) const {
  world_.barrier();
  on_root(world_, [&] {
    const fs::path folder = stage_folder(stage);
    std::error_code error;
    fs::remove(folder / "done.json", error);  // first: a folder half emptied must not count as done
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (std::find(kept.begin(), kept.end(), entry.path().filename()) != kept.end()) continue;
      fs::remove_all(entry.path(), error);
      if (error)
        throw Error(ErrorClass::storage, entry.path().string() + ": cannot be removed: " + error.message());
    }
  });
}

void RunDirectory::append_metric(const Json& line) const {
  if (world_.rank() != 0) return;
  const fs::path file = path_ / "metrics.jsonl";
  std::ofstream stream(file, std::ios::app | std::ios::binary);
  stream << line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n" << std::flush;
  if (!stream)
    throw Error(ErrorClass::storage, file.string() + ": cannot be written: " + std::strerror(errno));
}

}  // namespace efface
