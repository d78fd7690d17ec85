#include "core/storage/pending_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "distributed/error.hpp"

namespace efface {
namespace {

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& action, int error) {
  const char* remedy = error == ENOSPC || error == EDQUOT  ? "free some space and run the same command again"
                       : error == EACCES || error == EROFS ? "choose a folder that can be written"
                                                           : "";
  throw Error(ErrorClass::storage, file.string() + ": " + action + ": " + std::strerror(error), remedy);
}

}  // namespace

PendingFile::PendingFile(const std::filesystem::path& target) : target_(target) {
  std::string name = ".";
  name.append(target.filename().string()).append(".tmp-").append(std::to_string(::getpid()));
  temporary_ = target.parent_path() / name;
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(target_, "cannot be created", errno);
}

PendingFile::~PendingFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  std::error_code ignored;
  if (!published_) std::filesystem::remove(temporary_, ignored);
}

void PendingFile::append(const void* data, size_t bytes) {
  constexpr size_t kLargestWrite = size_t{1} << 30;  // Linux writes at most 2 GiB a call
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, std::min(bytes, kLargestWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(target_, "cannot be written", errno);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void PendingFile::publish() {
  if (::fsync(descriptor_) != 0) fail(target_, "cannot be flushed to disk", errno);
  if (::close(descriptor_) != 0) {
    descriptor_ = -1;
    fail(target_, "cannot be closed", errno);
  }
  descriptor_ = -1;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(target_, "cannot be renamed", errno);
  published_ = true;
  sync_folder(target_.parent_path());
}

void sync_folder(const std::filesystem::path& folder) {
  const std::filesystem::path name = folder.empty() ? "." : folder;
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(name, "cannot be opened", errno);
  const int status = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some network file systems cannot flush a folder and say so with EINVAL.
  if (status != 0 && error != EINVAL) fail(name, "cannot be flushed to disk", error);
}

}  // namespace efface
