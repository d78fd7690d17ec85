// What the two stores of this room share: the manifest beside the HDF5 files, and the files it lists.
//
// A chain of checksums: the manifest's own covers the checksum of every dataset, which covers those of its
// blocks of rows, which cover the values. So whatever is read is what was written together, or an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/module.hpp"
#include "core/storage/hdf5_file.hpp"

namespace efface {

/// {"crc32c": of the rest, "format": 2, "kind": kind, "key": key, "inputs": {name: {...}},
///  "files": {name: {"bytes": size, "crc32c": {dataset: checksum}}}}
nlohmann::json make_manifest(const std::string& kind, const nlohmann::json& key, nlohmann::json inputs,
                             nlohmann::json files);
/// Throws Error(storage) naming the file when it is missing, damaged or of another kind or format.
nlohmann::json read_manifest(const std::filesystem::path& folder, const std::string& kind);
/// Adds the checksum.
void write_manifest(const std::filesystem::path& folder, nlohmann::json manifest);

/// The inverse of input_name(), sorted.
std::vector<InputId> inputs_of_manifest(const nlohmann::json& manifest);

/// One input's scalars. Each throws Error(storage), naming folder, input and field, for a value that is
/// missing, of another type or out of range.
class ManifestEntry {
 public:
  ManifestEntry(const nlohmann::json& manifest, const std::filesystem::path& folder, const InputId& id);
  int64_t integer(const char* field, int64_t least, int64_t most) const;
  double number(const char* field) const;  ///< finite, not negative
  bool flag(const char* field) const;
  std::string text(const char* field) const;

 private:
  [[noreturn]] void refuse(const char* field, const std::string& wanted) const;
  const nlohmann::json& at(const char* field) const;

  const nlohmann::json* entry_;
  std::string where_;
};
/// Widths and ranks are below it, so that their products fit.
constexpr int64_t kLargestWidth = std::numeric_limits<int32_t>::max();

/// An HDF5 file being written that notes what the manifest lists of it.
class StoreFileWriter {
 public:
  explicit StoreFileWriter(std::filesystem::path file);
  void write(const std::string& dataset, const at::Tensor& tensor);
  /// Closes the file and gives its part of "files": {its name: {...}}.
  nlohmann::json close();

 private:
  std::filesystem::path path_;
  Hdf5File file_;
  nlohmann::json checksums_ = nlohmann::json::object();
};

/// A file that the manifest lists. Throws Error(storage) naming the file when it is not listed, not in the
/// folder, missing, of another size or damaged; naming the dataset too when that is damaged, not the one the
/// manifest lists or not of `shape`.
class StoreFile {
 public:
  StoreFile(const nlohmann::json& manifest, const std::filesystem::path& folder, const std::string& file);
  at::Tensor read(const std::string& dataset, const std::vector<int64_t>& shape) const;
  /// Rows [begin, end) of it; `shape` is the whole's.
  at::Tensor read_rows(const std::string& dataset, const std::vector<int64_t>& shape, int64_t begin,
                       int64_t end) const;
  /// Reads a dataset of any shape and forgets it: throws as read() would.
  void verify(const std::string& dataset) const;

 private:
  void check(const std::string& dataset, const std::vector<int64_t>& shape) const;

  std::filesystem::path path_;
  nlohmann::json checksums_;
  Hdf5File file_;
};

}  // namespace efface
