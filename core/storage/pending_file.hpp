// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>

namespace efface {

/// Reserves ".NAME.tmp-PID" beside `target`. Its owner writes there (with append(), or by any other library);
/// publish() flushes it to disk and renames it; without publish() the destructor removes it, and what was
/// under `target` before stays. Throws Error(storage) naming the target.
class PendingFile {
 public:
  explicit PendingFile(const std::filesystem::path& target);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }
  const std::filesystem::path& target() const { return target_; }
  void append(const void* data, size_t bytes);
  void publish();

 private:
  std::filesystem::path target_, temporary_;
  int descriptor_ = -1;
  bool published_ = false;
};

/// Makes renames inside `folder` survive a power failure. Throws Error(storage).
void sync_folder(const std::filesystem::path& folder);

}  // namespace efface
