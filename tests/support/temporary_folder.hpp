// A folder that goes when the test ends.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/world.hpp"

namespace efface::testing {

/// Private: one a rank. Shared: one for all ranks (collective, both when made and when it goes).
class TemporaryFolder {
 public:
  enum class Kind { private_to_rank, shared };

  explicit TemporaryFolder(Kind kind = Kind::private_to_rank) : kind_(kind) {
    std::string name = (std::filesystem::temp_directory_path() / "efface-test-XXXXXX").string();
    const bool makes = kind_ == Kind::private_to_rank || world().rank() == 0;
    if (makes && !::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = kind_ == Kind::shared ? world().broadcast(name, 0) : name;
  }
  ~TemporaryFolder() {
    if (kind_ == Kind::shared) world().barrier();
    std::error_code ignored;
    if (kind_ == Kind::private_to_rank || world().rank() == 0) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  Kind kind_;
  std::filesystem::path path_;
};

inline void write_bytes(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

inline std::string read_bytes(const std::filesystem::path& file) {
  std::ostringstream bytes;
  bytes << std::ifstream(file, std::ios::binary).rdbuf();
  return bytes.str();
}

}  // namespace efface::testing
