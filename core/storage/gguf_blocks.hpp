// ggml's tensor types: values come in blocks with a scale of their own, and here become fp32.
#pragma once

#include <cstdint>
#include <string>

namespace efface {

struct GgufTensorType {
  uint32_t number;
  const char* name;
  int64_t values;  ///< a block
  uint64_t bytes;  ///< a block
  /// `blocks` blocks to blocks * values numbers, each computed in fp32 in the order the reference does.
  void (*dequantize)(const uint8_t* bytes, int64_t blocks, float* out);
};

/// nullptr for a type that is not read.
const GgufTensorType* find_gguf_tensor_type(uint32_t number);

/// "Q3_K", or "number 99", for messages.
std::string gguf_tensor_type_name(uint32_t number);

/// "F32, F16, ...": those that are read.
std::string readable_gguf_tensor_types();

}  // namespace efface
