#include "core/storage/pending_folder.hpp"

#include <unistd.h>

#include <string>
#include <system_error>

#include "core/storage/pending_file.hpp"
#include "distributed/error.hpp"

namespace efface {

namespace fs = std::filesystem;

PendingFolder::PendingFolder(const fs::path& target) {
  std::error_code error;
  target_ = fs::absolute(target, error).lexically_normal();
  if (!target_.has_filename()) target_ = target_.parent_path();
  if (fs::exists(target_, error) && !(fs::is_directory(target_, error) && fs::is_empty(target_, error)))
    throw Error(ErrorClass::storage, target_.string() + ": is there already",
                "remove it or name another folder");
  std::string name = ".";
  name.append(target_.filename().string()).append(".tmp-").append(std::to_string(::getpid()));
  temporary_ = target_.parent_path() / name;
  fs::remove_all(temporary_, error);
  fs::create_directories(temporary_, error);
  if (error) throw Error(ErrorClass::storage, target_.string() + ": cannot be created: " + error.message());
}

PendingFolder::~PendingFolder() {
  std::error_code ignored;
  if (!published_) fs::remove_all(temporary_, ignored);
}

void PendingFolder::publish() {
  sync_folder(temporary_);
  std::error_code error;
  fs::rename(temporary_, target_, error);
  if (error) throw Error(ErrorClass::storage, target_.string() + ": cannot be renamed: " + error.message());
  published_ = true;
  sync_folder(target_.parent_path());
}

}  // namespace efface
