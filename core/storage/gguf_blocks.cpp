#include "core/storage/gguf_blocks.hpp"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstring>
#include <iterator>

namespace efface {
namespace {

constexpr int kSmall = 32, kSuper = 256;  // values of a plain block and of a "K" super-block

template <class Scalar>
float scalar_at(const uint8_t* bytes) {
  Scalar value;
  std::memcpy(static_cast<void*>(&value), bytes, sizeof(value));
  return static_cast<float>(value);
}
float half_at(const uint8_t* bytes) { return scalar_at<c10::Half>(bytes); }

template <class Scalar>
void plain(const uint8_t* block, float* out) {
  *out = scalar_at<Scalar>(block);
}

/// 16 bytes of two values each: the low halves are values 0..15, the high halves 16..31.
uint8_t nibble(const uint8_t* packed, int i) { return i < 16 ? packed[i] & 0x0F : packed[i - 16] >> 4; }

/// d; x = d (q - 8)
void q4_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = scale * static_cast<float>(nibble(block + 2, i) - 8);
}

/// d, m; x = d q + m
void q4_1(const uint8_t* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = scale * static_cast<float>(nibble(block + 4, i)) + minimum;
}

/// Four bits as above; the fifth of value i is bit i of 32 before them.
int five_bits(const uint8_t* high, int i) { return nibble(high + 4, i) | (high[i / 8] >> (i % 8) & 1) << 4; }

/// d; x = d (q - 16)
void q5_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = scale * static_cast<float>(five_bits(block + 2, i) - 16);
}

/// d, m; x = d q + m
void q5_1(const uint8_t* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = scale * static_cast<float>(five_bits(block + 4, i)) + minimum;
}

/// d, then signed bytes; x = d q
void q8_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

/// Scale and minimum of each 32 values of a Q4_K or Q5_K super-block: d, dmin, then 12 bytes of 6-bit
/// numbers; of the last four of either kind the two upper bits lie in the bytes of the first four.
struct ScaleAndMinimum {
  ScaleAndMinimum(const uint8_t* block, int part) {
    const uint8_t* packed = block + 4;
    const int low = part < 4 ? packed[part] & 63 : (packed[part + 4] & 0x0F) | packed[part - 4] >> 6 << 4;
    const int high = part < 4 ? packed[part + 4] & 63 : packed[part + 4] >> 4 | packed[part] >> 6 << 4;
    scale = half_at(block) * static_cast<float>(low);
    minimum = half_at(block + 2) * static_cast<float>(high);
  }
  float scale, minimum;
};

/// x = d q - m; 64 values share 32 bytes, the first half in the low bits.
void q4_k(const uint8_t* block, float* out) {
  const uint8_t* packed = block + 16;
  for (int part = 0; part < kSuper / kSmall; ++part) {
    const ScaleAndMinimum of(block, part);
    for (int i = 0; i < kSmall; ++i) {
      const int q = packed[part / 2 * kSmall + i] >> (part % 2 * 4) & 0x0F;
      out[part * kSmall + i] = of.scale * static_cast<float>(q) - of.minimum;
    }
  }
}

/// The same with a fifth bit: bit `part` of byte i of 32.
void q5_k(const uint8_t* block, float* out) {
  const uint8_t *high = block + 16, *packed = block + 48;
  for (int part = 0; part < kSuper / kSmall; ++part) {
    const ScaleAndMinimum of(block, part);
    for (int i = 0; i < kSmall; ++i) {
      const int q = (packed[part / 2 * kSmall + i] >> (part % 2 * 4) & 0x0F) | (high[i] >> part & 1) << 4;
      out[part * kSmall + i] = of.scale * static_cast<float>(q) - of.minimum;
    }
  }
}

/// 128 bytes of low halves, 64 of upper pairs of bits, a signed scale for each 16 values, d; x = d s (q -
/// 32). 128 values share 64 bytes of halves and 32 of pairs: 32 values each from the bytes' low and upper
/// bits.
void q6_k(const uint8_t* block, float* out) {
  constexpr int kHalf = kSuper / 2;
  const uint8_t* scales = block + 192;
  const float all = half_at(block + 208);
  for (int i = 0; i < kSuper; ++i) {
    const int half = i / kHalf, quarter = i % kHalf / kSmall, at = i % kSmall;
    const uint8_t low = block[half * 64 + quarter % 2 * kSmall + at], high = block[128 + half * kSmall + at];
    const int q = (low >> (quarter / 2 * 4) & 0x0F) | (high >> (quarter * 2) & 3) << 4;
    out[i] = all * static_cast<float>(static_cast<int8_t>(scales[i / 16])) * static_cast<float>(q - 32);
  }
}

template <auto Block, int64_t Values, uint64_t Bytes>
void each_block(const uint8_t* bytes, int64_t blocks, float* out) {
  for (int64_t block = 0; block < blocks; ++block, bytes += Bytes, out += Values) Block(bytes, out);
}

template <auto Block, int64_t Values, uint64_t Bytes>
constexpr GgufTensorType type(uint32_t number, const char* name) {
  return {number, name, Values, Bytes, each_block<Block, Values, Bytes>};
}

constexpr GgufTensorType kTypes[] = {
    type<plain<float>, 1, 4>(0, "F32"),
    type<plain<c10::Half>, 1, 2>(1, "F16"),
    type<plain<c10::BFloat16>, 1, 2>(30, "BF16"),
    type<q4_0, kSmall, 18>(2, "Q4_0"),
    type<q4_1, kSmall, 20>(3, "Q4_1"),
    type<q5_0, kSmall, 22>(6, "Q5_0"),
    type<q5_1, kSmall, 24>(7, "Q5_1"),
    type<q8_0, kSmall, 34>(8, "Q8_0"),
    type<q4_k, kSuper, 144>(12, "Q4_K"),
    type<q5_k, kSuper, 176>(13, "Q5_K"),
    type<q6_k, kSuper, 210>(14, "Q6_K"),
};

// Names of those that are not read, by number.
constexpr struct {
  uint32_t number;
  const char* name;
} kOthers[] = {{9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
               {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
               {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
               {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"}};

}  // namespace

const GgufTensorType* find_gguf_tensor_type(uint32_t number) {
  for (const GgufTensorType& known : kTypes)
    if (known.number == number) return &known;
  return nullptr;
}

std::string gguf_tensor_type_name(uint32_t number) {
  if (const auto* known = find_gguf_tensor_type(number)) return known->name;
  for (const auto& other : kOthers)
    if (other.number == number) return other.name;
  return "number " + std::to_string(number);
}

std::string readable_gguf_tensor_types() {
  std::string names;
  for (const GgufTensorType& known : kTypes) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

}  // namespace efface
