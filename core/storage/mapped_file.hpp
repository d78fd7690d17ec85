// A file mapped read-only into memory, and the few things every reader of untrusted files needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "distributed/error.hpp"

namespace efface {

/// Only regular files are mapped (a pipe would block, a directory has no bytes). Throws Error(kind) naming
/// the file. The file must not be truncated by others while its mapped bytes are looked at.
class MappedFile {
 public:
  MappedFile(const std::filesystem::path& file, ErrorClass kind);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

  /// Bytes [begin, begin + bytes) of the file into `target`, on all of ATen's threads and not through the
  /// mapping: new memory then costs one page fault every 2 MiB, and a file cut short meanwhile an Error.
  void read(void* target, uint64_t begin, uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  ErrorClass kind_;
  int descriptor_ = -1;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

/// A name from a file as it may be shown in a message: in quotes, control characters escaped, at most 120
/// bytes.
std::string shown(std::string_view name);

}  // namespace efface
