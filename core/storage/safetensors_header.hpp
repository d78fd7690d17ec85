// The JSON parts of safetensors, read from untrusted bytes without building a document: only the keys the
// format has are kept, everything else is refused (header) or passed over (index).
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/storage/mapped_file.hpp"

namespace efface {

struct SafetensorsEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the mapped file
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
};

/// Every entry's bytes lie in the file, in order, without overlap or hole, and are as many as shape and dtype
/// say. Throws Error(model) naming file and tensor.
SafetensorsHeader read_safetensors_header(const MappedFile& file);

/// Tensor name -> file name, from model.safetensors.index.json. File names stay inside the folder.
std::map<std::string, std::string> read_safetensors_index(const std::filesystem::path& index);

/// "F32", "BF16", ...; throws Error(model) for a dtype safetensors or efface does not have.
const char* safetensors_dtype_name(at::ScalarType dtype);

}  // namespace efface
