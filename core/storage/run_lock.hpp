// One run at a time in a folder.
#pragma once

#include <filesystem>
#include <string>

namespace efface {

/// Holds FOLDER/run.lock: an flock() for as long as the process lives, and in the file who holds it (host,
/// pid, start of that process), for other hosts that share the folder and for the message. A lock whose owner
/// is gone from this host is taken over. Throws Error(storage) at once, naming the owner, when the lock is
/// held.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
};

/// "pid 123 on host" of the live run that holds FOLDER/run.lock, as far as this host can tell; empty: none.
std::string lock_owner(const std::filesystem::path& folder);

}  // namespace efface
