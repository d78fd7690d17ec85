#include "core/storage/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace efface {

MappedFile::MappedFile(const std::filesystem::path& file, ErrorClass kind) : path_(file) {
  // Without O_NONBLOCK, opening a named pipe waits for a writer.
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw Error(kind, file.string() + ": " + std::strerror(errno));
  struct stat status {};
  std::string problem;
  if (::fstat(descriptor, &status) != 0) {
    problem = std::strerror(errno);
  } else if (!S_ISREG(status.st_mode)) {
    problem = "not a regular file";
  } else if (status.st_size > 0) {
    size_ = static_cast<uint64_t>(status.st_size);
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED)
      problem = std::string("cannot be mapped: ") + std::strerror(errno);
    else
      data_ = static_cast<const uint8_t*>(address);
  }
  ::close(descriptor);
  if (!problem.empty()) throw Error(kind, file.string() + ": " + problem);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

std::string shown(std::string_view name) {
  constexpr size_t kLongest = 120;
  const bool cut = name.size() > kLongest;
  const nlohmann::json text(std::string(name.substr(0, kLongest)) + (cut ? "..." : ""));
  return text.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

}  // namespace efface
