#include "distributed/philox.hpp"

#include <array>
#include <cmath>

#include "distributed/error.hpp"
#include "distributed/philox_block.hpp"

namespace efface {
namespace {

constexpr float kTwoToMinus24 = 0x1p-24F, kTwoToMinus32 = 0x1p-32F, kTwoPi = 6.283185307179586F;

/// FNV-1a over purpose, a separator and name.
uint64_t hash(std::string_view purpose, std::string_view name) {
  uint64_t value = 0xcbf29ce484222325U;
  const auto take = [&value](unsigned char byte) { value = (value ^ byte) * 0x100000001b3U; };
  for (char c : purpose) take(static_cast<unsigned char>(c));
  take(0);
  for (char c : name) take(static_cast<unsigned char>(c));
  return value;
}

/// The blocks of one key: block b is the cipher of counter (b, hash(purpose, name)) under the seed.
class Stream {
 public:
  explicit Stream(const PhiloxKey& key)
      : key_{static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)},
        name_(hash(key.purpose, key.name)) {}
  PhiloxBlock operator()(uint64_t block) const {
    return philox_block({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                         static_cast<uint32_t>(name_), static_cast<uint32_t>(name_ >> 32)},
                        key_);
  }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t name_;
};

using Four = std::array<float, 4>;

Four uniforms(const PhiloxBlock& bits) {
  Four values{};
  for (int i = 0; i < 4; ++i) values[i] = static_cast<float>(bits[i] >> 8) * kTwoToMinus24;
  return values;
}

/// Box-Muller on the pairs (0, 1) and (2, 3); the radius' uniform lies in (0, 1], so the logarithm is finite.
Four normals(const PhiloxBlock& bits) {
  Four values{};
  for (int i = 0; i < 4; i += 2) {
    const float u = static_cast<float>(bits[i]) * kTwoToMinus32 + 0.5F * kTwoToMinus32;
    const float angle = static_cast<float>(bits[i + 1]) * (kTwoToMinus32 * kTwoPi);
    const float radius = std::sqrt(-2.F * std::log(u));
    values[i] = radius * std::cos(angle);
    values[i + 1] = radius * std::sin(angle);
  }
  return values;
}

/// Element i of the global matrix (row-major) is value i % 4 of block i / 4.
template <typename Distribution>
at::Tensor fill(const PhiloxKey& key, int64_t rows, int64_t columns, int64_t row_begin, int64_t column_begin,
                int64_t global_columns, Distribution distribution) {
  if (global_columns < 0) global_columns = column_begin + columns;
  if (rows < 0 || columns < 0 || row_begin < 0 || column_begin < 0 || column_begin + columns > global_columns)
    throw Error(ErrorClass::usage, "random slice of " + std::to_string(columns) + " columns from column " +
                                       std::to_string(column_begin) + " does not lie in a matrix of " +
                                       std::to_string(global_columns));
  const Stream stream(key);
  auto result = at::empty({rows, columns}, at::kFloat);
  auto* out = result.data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row) {
    auto index = static_cast<uint64_t>((row_begin + row) * global_columns + column_begin);
    const uint64_t end = index + static_cast<uint64_t>(columns);
    while (index < end) {
      const Four values = distribution(stream(index / 4));
      for (uint64_t lane = index % 4; lane < 4 && index < end; ++lane, ++index) *out++ = values[lane];
    }
  }
  return result;
}

}  // namespace

at::Tensor philox_normal(const PhiloxKey& key, int64_t rows, int64_t columns, int64_t row_begin,
                         int64_t column_begin, int64_t global_columns) {
  return fill(key, rows, columns, row_begin, column_begin, global_columns, normals);
}

at::Tensor philox_uniform(const PhiloxKey& key, int64_t rows, int64_t columns, int64_t row_begin,
                          int64_t column_begin, int64_t global_columns) {
  return fill(key, rows, columns, row_begin, column_begin, global_columns, uniforms);
}

std::vector<int64_t> philox_permutation(const PhiloxKey& key, int64_t n) {
  const Stream stream(key);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  for (int64_t i = n - 1; i > 0; --i) {
    const PhiloxBlock bits = stream(static_cast<uint64_t>(i));
    const uint64_t draw = (uint64_t{bits[1]} << 32) | bits[0];
    std::swap(order[i], order[static_cast<int64_t>(draw % static_cast<uint64_t>(i + 1))]);
  }
  return order;
}

}  // namespace efface
