// The folder of one run: a manifest, one folder a stage, each stage done or not. A stage is done when its
// `done.json` is there and its key equals the key of what is asked now (a hash of everything it depends on).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/communicator.hpp"

namespace efface {

class RunDirectory {
 public:
  /// Makes or opens the folder; the root rank takes the lock (run.lock: host and pid; broken when the owner
  /// is gone on this host). Throws Error(storage) on every rank when another run holds it. Collective.
  RunDirectory(const std::filesystem::path& folder, const Communicator& world);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path stage_folder(const std::string& stage) const;  ///< made when missing
  /// Collective; the root's answer. `key` is any JSON value; its canonical text is hashed.
  bool is_done(const std::string& stage, const nlohmann::json& key) const;
  /// Why it is not done: "never run", or the first part of the key that differs, as a JSON pointer with the
  /// value then and now. Empty when it is done. Not collective.
  std::string why_stale(const std::string& stage, const nlohmann::json& key) const;
  /// The root writes done.json (beside and renamed), with `summary` for later stages and reports, and size
  /// and checksum of every file of the stage but its checkpoints, which have their own. Collective.
  void mark_done(const std::string& stage, const nlohmann::json& key, const nlohmann::json& summary);
  /// The files of a stage that is done and that are not as it left them -> what is wrong. Collective.
  std::map<std::string, std::string> damaged(const std::string& stage) const;
  /// What was wrong with the folder when it was opened and has been mended, a line each; on the root.
  const std::vector<std::string>& problems() const { return problems_; }
  /// What mark_done() was given. Not collective; throws Error(storage) for a stage that is not done.
  nlohmann::json summary(const std::string& stage) const;
  /// Empties the stage's folder, but for what is named, before it is computed again. Collective.
  void clear(const std::string& stage, const std::vector<std::string>& kept = {}) const;
  /// One line of JSON appended to metrics.jsonl (root only; others do nothing).
  void append_metric(const nlohmann::json& line) const;

 private:
  std::filesystem::path path_;
  Communicator world_;
  std::shared_ptr<void> lock_;
  std::vector<std::string> problems_;
};

/// Text written beside its name, flushed and renamed.
void write_text_file(const std::filesystem::path& file, const std::string& text);
std::string read_text_file(const std::filesystem::path& file);
/// 64-bit FNV-1a as 16 hex digits, for cache keys (not for security).
std::string hash_text(std::string_view text);
/// CRC-32C (Castagnoli) of a buffer; `previous` is the checksum of what came before it. Uses the processor's
/// instruction where there is one; the portable form gives the same number.
uint32_t crc32c(const void* data, size_t bytes, uint32_t previous = 0);
uint32_t crc32c_portable(const void* data, size_t bytes, uint32_t previous = 0);

}  // namespace efface
