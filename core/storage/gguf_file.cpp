#include "core/storage/gguf_file.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/storage/gguf_blocks.hpp"

static_assert(std::endian::native == std::endian::little, "GGUF is read as little endian");

namespace efface {
namespace {

// The format's value types, by number.
enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

/// Bytes of one value; 0 for those without a fixed size.
uint64_t value_size(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

}  // namespace

void GgufFile::refuse(const std::string& what, const std::string& remedy) const {
  throw Error(ErrorClass::model, path().string() + ": " + what, remedy);
}

template <typename T>
T GgufFile::take(uint64_t& offset) const {
  if (offset > file_.size() || file_.size() - offset < sizeof(T))
    refuse("is cut short at byte " + std::to_string(offset));
  T value;
  std::memcpy(&value, file_.data() + offset, sizeof(T));
  offset += sizeof(T);
  return value;
}

std::string_view GgufFile::take_text(uint64_t& offset) const {
  const auto length = take<uint64_t>(offset);
  if (length > file_.size() - offset)
    refuse("a text at byte " + std::to_string(offset) + " claims " + std::to_string(length) +
           " bytes, more than are left");
  const std::string_view text(reinterpret_cast<const char*>(file_.data()) + offset, length);
  offset += length;
  return text;
}

GgufFile::Value GgufFile::take_value(uint64_t& offset, const std::string& key) const {
  Value value;
  value.type = take<uint32_t>(offset);
  if (value.type == kArray) {
    value.is_array = true;
    value.type = take<uint32_t>(offset);
    value.count = take<uint64_t>(offset);
  }
  value.offset = offset;
  if (value.type == kString) {
    // A text takes at least the 8 bytes of its length, so the walk ends within the file.
    for (uint64_t i = 0; i < value.count; ++i) take_text(offset);
    return value;
  }
  const uint64_t size = value_size(value.type);
  if (size == 0) refuse("key " + shown(key) + " has the unknown type " + std::to_string(value.type));
  if (value.count > (file_.size() - offset) / size)
    refuse("key " + shown(key) + " claims " + std::to_string(value.count) + " values, more than are left");
  offset += value.count * size;
  return value;
}

std::pair<std::string, GgufFile::Tensor> GgufFile::take_tensor(uint64_t& offset) const {
  constexpr uint32_t kMostDimensions = 4;  // ggml's own
  const std::string name(take_text(offset));
  const auto dimensions = take<uint32_t>(offset);
  if (dimensions == 0 || dimensions > kMostDimensions)
    refuse("tensor " + shown(name) + " has " + std::to_string(dimensions) + " dimensions");
  Tensor tensor;
  int64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = take<uint64_t>(offset);
    if (size == 0 || size > INT64_MAX ||
        __builtin_mul_overflow(elements, static_cast<int64_t>(size), &elements))
      refuse("tensor " + shown(name) + " has an impossible shape");
    tensor.shape.insert(tensor.shape.begin(),
                        static_cast<int64_t>(size));  // the file has the innermost first
  }
  tensor.type = take<uint32_t>(offset);
  tensor.offset = take<uint64_t>(offset);
  const GgufTensorType* type = find_gguf_tensor_type(tensor.type);
  if (!type)
    refuse("tensor " + shown(name) + " has the type " + gguf_tensor_type_name(tensor.type),
           readable_gguf_tensor_types() + " are read");
  if (tensor.shape.back() % type->values != 0)
    refuse("tensor " + shown(name) + " has rows that are no multiple of its block of " +
           std::to_string(type->values));
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements / type->values), type->bytes, &tensor.bytes))
    refuse("tensor " + shown(name) + " has an impossible shape");
  return {name, std::move(tensor)};
}

GgufFile::GgufFile(const std::filesystem::path& file) : file_(file, ErrorClass::model) {
  uint64_t offset = 0;
  if (file_.size() < 24 || std::memcmp(file_.data(), "GGUF", 4) != 0) refuse("is not a GGUF file");
  offset = 4;
  const auto version = take<uint32_t>(offset);
  if (version != 2 && version != 3)
    refuse("is of GGUF version " + std::to_string(version), "versions 2 and 3, little endian, are read");
  const auto tensors = take<uint64_t>(offset), keys = take<uint64_t>(offset);
  for (uint64_t i = 0; i < keys; ++i) {
    const std::string key(take_text(offset));
    if (!values_.emplace(key, take_value(offset, key)).second) refuse("key " + shown(key) + " occurs twice");
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    auto [name, tensor] = take_tensor(offset);
    const auto inserted = tensors_.emplace(name, std::move(tensor)).second;
    if (!inserted) refuse("tensor " + shown(name) + " occurs twice");
  }
  place_tensors(offset);
}

void GgufFile::place_tensors(uint64_t table_end) {
  const int64_t alignment = integer("general.alignment", 32);
  if (alignment < 1 || alignment > (1 << 20) || (alignment & (alignment - 1)) != 0)
    refuse("general.alignment is " + std::to_string(alignment) + ", not a power of two");
  const auto step = static_cast<uint64_t>(alignment);
  const uint64_t start = (table_end + step - 1) / step * step;
  if (!tensors_.empty() && start > file_.size()) refuse("is cut short before its tensors");
  const uint64_t available = tensors_.empty() ? 0 : file_.size() - start;

  std::vector<std::pair<uint64_t, const std::string*>> order;
  for (auto& [name, tensor] : tensors_) {
    if (tensor.offset % step != 0) refuse("tensor " + shown(name) + " is not aligned");
    if (tensor.offset > available || tensor.bytes > available - tensor.offset)
      refuse("tensor " + shown(name) + " ends outside the file (which is cut short)");
    order.emplace_back(tensor.offset, &name);
    tensor.offset += start;
  }
  std::sort(order.begin(), order.end());
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i].first < order[i - 1].first + tensors_.at(*order[i - 1].second).bytes)
      refuse("tensors " + shown(*order[i - 1].second) + " and " + shown(*order[i].second) + " overlap");
}

const GgufFile::Value& GgufFile::find(const std::string& key, bool array) const {
  const auto found = values_.find(key);
  if (found == values_.end()) refuse("has no key " + key);
  if (found->second.is_array != array) refuse("key " + key + (array ? " is not a list" : " is a list"));
  return found->second;
}

int64_t GgufFile::integer_at(const Value& value, uint64_t index, const std::string& key) const {
  uint64_t offset = value.offset + index * value_size(value.type);
  switch (value.type) {
    case kUint8:
      return take<uint8_t>(offset);
    case kInt8:
      return take<int8_t>(offset);
    case kUint16:
      return take<uint16_t>(offset);
    case kInt16:
      return take<int16_t>(offset);
    case kUint32:
      return take<uint32_t>(offset);
    case kInt32:
      return take<int32_t>(offset);
    case kInt64:
      return take<int64_t>(offset);
    case kUint64: {
      const auto number = take<uint64_t>(offset);
      if (number > INT64_MAX) refuse("key " + key + " is too large");
      return static_cast<int64_t>(number);
    }
    default:
      refuse("key " + key + " is not a whole number");
  }
}

int64_t GgufFile::integer(const std::string& key, std::optional<int64_t> fallback) const {
  if (fallback && !contains(key)) return *fallback;
  return integer_at(find(key, false), 0, key);
}

double GgufFile::number(const std::string& key, std::optional<double> fallback) const {
  if (fallback && !contains(key)) return *fallback;
  const Value& value = find(key, false);
  uint64_t offset = value.offset;
  if (value.type == kFloat32) return take<float>(offset);
  if (value.type == kFloat64) return take<double>(offset);
  return static_cast<double>(integer_at(value, 0, key));
}

bool GgufFile::boolean(const std::string& key, bool fallback) const {
  if (!contains(key)) return fallback;
  const Value& value = find(key, false);
  if (value.type != kBool) refuse("key " + key + " is not true or false");
  return file_.data()[value.offset] != 0;
}

std::string GgufFile::text(const std::string& key) const {
  const Value& value = find(key, false);
  if (value.type != kString) refuse("key " + key + " is not a text");
  uint64_t offset = value.offset;
  return std::string(take_text(offset));
}

std::vector<std::string_view> GgufFile::texts(const std::string& key) const {
  const Value& value = find(key, true);
  if (value.type != kString) refuse("key " + key + " is not a list of texts");
  std::vector<std::string_view> result;
  uint64_t offset = value.offset;
  for (uint64_t i = 0; i < value.count; ++i) result.push_back(take_text(offset));
  return result;
}

std::vector<int64_t> GgufFile::integers(const std::string& key) const {
  const Value& value = find(key, true);
  std::vector<int64_t> result;
  for (uint64_t i = 0; i < value.count; ++i) result.push_back(integer_at(value, i, key));
  return result;
}

std::vector<float> GgufFile::numbers(const std::string& key) const {
  const Value& value = find(key, true);
  if (value.type != kFloat32) refuse("key " + key + " is not a list of fp32 numbers");
  std::vector<float> result(value.count);
  if (!result.empty()) std::memcpy(result.data(), file_.data() + value.offset, result.size() * sizeof(float));
  return result;
}

std::vector<std::string> GgufFile::tensor_names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

const GgufFile::Tensor& GgufFile::find_tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) refuse("has no tensor " + shown(name));
  return found->second;
}

std::vector<int64_t> GgufFile::tensor_shape(const std::string& name) const { return find_tensor(name).shape; }

at::Tensor GgufFile::read(const std::string& name) const {
  const Tensor& tensor = find_tensor(name);
  at::Tensor result = at::empty(tensor.shape, at::kFloat);
  const uint8_t* source = file_.data() + tensor.offset;
  auto* target = result.data_ptr<float>();
  const GgufTensorType& type = *find_gguf_tensor_type(tensor.type);
  constexpr int64_t kValuesAThread = 1 << 16;
  at::parallel_for(0, result.numel() / type.values, kValuesAThread / type.values,
                   [&](int64_t begin, int64_t end) {
                     type.dequantize(source + begin * type.bytes, end - begin, target + begin * type.values);
                   });
  return result;
}

}  // namespace efface
