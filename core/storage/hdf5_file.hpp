// HDF5 with values and RAII over the C API. One file is used by one rank; ranks share a folder with a
// manifest.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace efface {

/// A file being written lives under a temporary name in the same folder and appears under its own by close();
/// without close() nothing is left behind. Every dataset carries a CRC-32C of each block of its rows, begun
/// with its name, dtype and shape; every read checks the blocks it touches, so that a damaged file gives an
/// error and never other values. bfloat16 is stored as uint16 with the attribute "dtype" = "bfloat16".
/// Names are paths: "0.qkv/matrix" makes the group. Threads may use different files at once: calls wait for
/// each other. Throws Error(storage) naming file and dataset.
class Hdf5File {
 public:
  static Hdf5File create(const std::filesystem::path& file);
  /// Throws Error(storage) for a file that is missing, damaged or of another format number.
  static Hdf5File open(const std::filesystem::path& file);
  void close();  ///< flush, fsync, rename. Throws where the disk is full; the old file is then untouched.

  void write(const std::string& name, const at::Tensor& tensor);
  void write(const std::string& name, const std::vector<double>& values);
  void write(const std::string& name, const std::string& text);
  void write_attribute(const std::string& object, const std::string& key, const std::string& value);
  void write_attribute(const std::string& object, const std::string& key, double value);
  void write_attribute(const std::string& object, const std::string& key, int64_t value);

  bool contains(const std::string& name) const;
  std::vector<std::string> list(const std::string& group = "/") const;
  at::Tensor read(const std::string& name) const;
  /// Rows [begin, end) of a dataset; reads and checks the blocks they lie in (about 256 KiB each).
  at::Tensor read_rows(const std::string& name, int64_t begin, int64_t end) const;
  /// CRC-32C of a tensor's name, dtype, shape and the checksums of its blocks; the values are not read.
  uint32_t checksum(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  std::string read_text(const std::string& name) const;
  std::string attribute_text(const std::string& object, const std::string& key) const;
  double attribute_number(const std::string& object, const std::string& key) const;
  bool has_attribute(const std::string& object, const std::string& key) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace efface
