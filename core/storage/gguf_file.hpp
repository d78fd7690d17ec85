// A reader of GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3,
// little endian. The file is not trusted: each length is checked against the bytes left before it is used,
// and nothing is allocated but the tables of keys and tensors and the tensors asked for.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/storage/mapped_file.hpp"

namespace efface {

/// Every member throws Error(model) naming the file and the key or tensor.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const { return file_.path(); }
  bool contains(const std::string& key) const { return values_.count(key) > 0; }
  /// Any of the format's integer types; throws where the key is missing and there is no `fallback`.
  int64_t integer(const std::string& key, std::optional<int64_t> fallback = {}) const;
  double number(const std::string& key, std::optional<double> fallback = {}) const;
  bool boolean(const std::string& key, bool fallback) const;
  std::string text(const std::string& key) const;
  std::vector<std::string_view> texts(const std::string& key) const;  ///< views into the mapped file
  std::vector<int64_t> integers(const std::string& key) const;
  std::vector<float> numbers(const std::string& key) const;  ///< of fp32

  std::vector<std::string> tensor_names() const;
  bool has_tensor(const std::string& name) const { return tensors_.count(name) > 0; }
  std::vector<int64_t> tensor_shape(const std::string& name) const;  ///< rows first, as in PyTorch
  /// De-quantised to fp32 on the CPU (gguf_blocks.hpp has the types; any other is refused by name).
  at::Tensor read(const std::string& name) const;

  [[noreturn]] void refuse(const std::string& what, const std::string& remedy = "") const;

 private:
  struct Value {
    uint32_t type = 0;
    bool is_array = false;
    uint64_t count = 1;
    uint64_t offset = 0;  // of the first element
  };
  struct Tensor {
    std::vector<int64_t> shape;
    uint32_t type = 0;
    uint64_t offset = 0, bytes = 0;
  };

  template <typename T>
  T take(uint64_t& offset) const;
  std::string_view take_text(uint64_t& offset) const;
  Value take_value(uint64_t& offset, const std::string& key) const;
  std::pair<std::string, Tensor> take_tensor(uint64_t& offset) const;
  void place_tensors(uint64_t data_start);
  const Value& find(const std::string& key, bool array) const;
  int64_t integer_at(const Value& value, uint64_t index, const std::string& key) const;
  const Tensor& find_tensor(const std::string& name) const;

  MappedFile file_;
  std::map<std::string, Value> values_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace efface
