// A folder that appears whole or not at all.
#pragma once

#include <filesystem>

namespace efface {

/// Makes ".NAME.tmp-PID" beside `target`, where files are written; publish() renames it, and without
/// publish() the destructor removes it. A target that exists and is not empty is refused. Throws
/// Error(storage).
class PendingFolder {
 public:
  explicit PendingFolder(const std::filesystem::path& target);
  ~PendingFolder();
  PendingFolder(const PendingFolder&) = delete;
  PendingFolder& operator=(const PendingFolder&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }
  void publish();

 private:
  std::filesystem::path target_, temporary_;
  bool published_ = false;
};

}  // namespace efface
