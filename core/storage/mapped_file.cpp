#include "core/storage/mapped_file.hpp"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace efface {

namespace {

/// Asks for huge pages where a whole one fits. It is only advice: what the kernel answers does not matter.
void advise_huge_pages(void* memory, uint64_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kHugePage * kHugePage;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& file, ErrorClass kind) : path_(file), kind_(kind) {
  // Without O_NONBLOCK, opening a named pipe waits for a writer.
  descriptor_ = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw Error(kind, file.string() + ": " + std::strerror(errno));
  struct stat status {};
  std::string problem;
  if (::fstat(descriptor_, &status) != 0) {
    problem = std::strerror(errno);
  } else if (!S_ISREG(status.st_mode)) {
    problem = "not a regular file";
  } else if (status.st_size > 0) {
    size_ = static_cast<uint64_t>(status.st_size);
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
    if (address == MAP_FAILED)
      problem = std::string("cannot be mapped: ") + std::strerror(errno);
    else
      data_ = static_cast<const uint8_t*>(address);
  }
  if (problem.empty()) return;
  ::close(descriptor_);
  throw Error(kind, file.string() + ": " + problem);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      kind_(other.kind_),
      descriptor_(std::exchange(other.descriptor_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MappedFile::read(void* target, uint64_t begin, uint64_t bytes) const {
  constexpr uint64_t kPiece = uint64_t{4} << 20;
  const uint64_t pieces = (bytes + kPiece - 1) / kPiece;
  if (pieces > 1) advise_huge_pages(target, bytes);
  std::atomic<uint64_t> next{0};
  const auto read_pieces = [&](int64_t, int64_t) {
    for (uint64_t piece = next++; piece < pieces; piece = next++) {
      const uint64_t end = std::min(bytes, (piece + 1) * kPiece);
      for (uint64_t at = piece * kPiece; at < end;) {
        const ssize_t got =
            ::pread(descriptor_, static_cast<char*>(target) + at, end - at, static_cast<off_t>(begin + at));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
          throw Error(kind_, path_.string() + ": " +
                                 (got < 0 ? std::strerror(errno) : "was cut short while it was read"));
        at += static_cast<uint64_t>(got);
      }
    }
  };
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), static_cast<int64_t>(pieces)), 1, read_pieces);
}

std::string shown(std::string_view name) {
  constexpr size_t kLongest = 120;
  const bool cut = name.size() > kLongest;
  const nlohmann::json text(std::string(name.substr(0, kLongest)) + (cut ? "..." : ""));
  return text.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

}  // namespace efface
