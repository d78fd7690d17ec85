#include "core/subspace/cpu_outer_product.hpp"

#include <algorithm>

#include "distributed/parallel_ranges.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace efface {
namespace {

constexpr int64_t kPanel = 48;   // columns: three vectors, which with eight rows fill the registers
constexpr int64_t kRows = 8;     // of a register block
constexpr int64_t kSteps = 128;  // tokens (or pairs) at a time: a panel of them fits in the first cache

int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

#if defined(__x86_64__)
// Only what runs after has_fp32() or has_bf16() may be compiled so, and nothing of the standard library.
#define EFFACE_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

struct Fp32 {
  EFFACE_AVX512 static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
};
struct Bf16Pairs {
  EFFACE_AVX512 static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

/// tile [8, 48] += a^T b over `steps`: a [steps, 48], of which eight columns, and b [steps, 48]. The sum
/// starts at zero each time, so that rounding grows with the steps of a call and the number of calls, not
/// their product.
template <typename Element>
EFFACE_AVX512 void register_block(const uint32_t* a, const uint32_t* b, int64_t steps, float* tile) {
  __m512 sums[kRows][3];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 3; ++v) sums[r][v] = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step, a += kPanel, b += kPanel) {
    const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16),
                  b2 = _mm512_loadu_si512(b + 32);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512i value = _mm512_set1_epi32(static_cast<int>(a[r]));
      sums[r][0] = Element::multiply_add(sums[r][0], value, b0);
      sums[r][1] = Element::multiply_add(sums[r][1], value, b1);
      sums[r][2] = Element::multiply_add(sums[r][2], value, b2);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 3; ++v) {
      float* const into = tile + r * kPanel + 16 * v;
      _mm512_storeu_ps(into, _mm512_add_ps(_mm512_loadu_ps(into), sums[r][v]));
    }
}

/// sum [rows, columns] += tile [48, 48].
EFFACE_AVX512 void add_tile(double* sum, int64_t stride, const float* tile, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) sum[r * stride + c] += static_cast<double>(tile[r * kPanel + c]);
}

/// One tile of the sum: all steps of a panel of rows and a panel of columns.
template <typename Element>
EFFACE_AVX512 void compute_tile(const uint32_t* a, const uint32_t* b, int64_t steps, float* tile) {
  for (int64_t i = 0; i < kPanel * kPanel; ++i) tile[i] = 0;
  for (int64_t first = 0; first < steps; first += kSteps) {
    const int64_t left = steps - first;
    for (int64_t row = 0; row < kPanel; row += kRows)
      register_block<Element>(a + first * kPanel + row, b + first * kPanel, left < kSteps ? left : kSteps,
                              tile + row * kPanel);
  }
}

/// A token's row of a panel, filled up with zeros.
EFFACE_AVX512 void pack_row(const float* row, int64_t columns, uint32_t* into) {
  for (int64_t first = 0; first < kPanel; first += 16, into += 16) {
    const int64_t left = columns - first;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : left > 0 ? (1 << left) - 1 : 0);
    _mm512_storeu_si512(into, _mm512_maskz_loadu_epi32(mask, row + first));
  }
}

/// Tokens first and first + 1 of a panel, side by side as one 32-bit element a column.
EFFACE_AVX512 void pack_pair(const uint16_t* first, const uint16_t* second, int64_t columns, uint32_t* into) {
  for (int64_t c = 0; c < columns; ++c)
    into[c] = first[c] | static_cast<uint32_t>(second == nullptr ? 0 : second[c]) << 16;
  for (int64_t c = columns; c < kPanel; ++c) into[c] = 0;
}

bool has_fp32() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}
bool has_bf16() { return has_fp32() && __builtin_cpu_supports("avx512bf16"); }

#else

struct Fp32;
struct Bf16Pairs;
template <typename Element>
void compute_tile(const uint32_t*, const uint32_t*, int64_t, float*) {}
void add_tile(double*, int64_t, const float*, int64_t, int64_t) {}
void pack_row(const float*, int64_t, uint32_t*) {}
void pack_pair(const uint16_t*, const uint16_t*, int64_t, uint32_t*) {}
bool has_fp32() { return false; }
bool has_bf16() { return false; }

#endif

}  // namespace

bool PackedColumns::suit(at::ScalarType dtype) {
  static const bool fp32 = has_fp32(), bf16 = has_bf16();
  return (dtype == at::kFloat && fp32) || (dtype == at::kBFloat16 && bf16);
}

bool PackedColumns::suit(const at::Tensor& x) { return x.is_cpu() && suit(x.scalar_type()); }

void PackedColumns::pack(const at::Tensor& x) {
  const int64_t tokens = x.size(0), stride = x.stride(0);
  bf16_ = x.scalar_type() == at::kBFloat16;
  steps_ = bf16_ ? (tokens + 1) / 2 : tokens;
  columns_ = x.size(1);
  const int64_t panels = panels_of(columns_);
  values_.resize(static_cast<size_t>(panels * steps_ * kPanel));
  const void* const data = x.const_data_ptr();
  parallel_ranges(panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * kPanel, width = std::min(kPanel, columns_ - first);
      uint32_t* into = values_.data() + panel * steps_ * kPanel;
      for (int64_t step = 0; step < steps_; ++step, into += kPanel) {
        if (bf16_) {
          const auto* row = static_cast<const uint16_t*>(data) + 2 * step * stride + first;
          pack_pair(row, 2 * step + 1 < tokens ? row + stride : nullptr, width, into);
        } else {
          pack_row(static_cast<const float*>(data) + step * stride + first, width, into);
        }
      }
    }
  });
}

void add_outer_product(at::Tensor sum, const PackedColumns& rows, const PackedColumns& columns,
                       bool triangle) {
  const int64_t steps = rows.steps_, row_panels = panels_of(sum.size(0)),
                column_panels = panels_of(sum.size(1));
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t i = 0; i < row_panels; ++i)
    for (int64_t j = 0; j < (triangle ? i + 1 : column_panels); ++j) tiles.emplace_back(i, j);
  double* const data = sum.data_ptr<double>();
  const int64_t stride = sum.stride(0);
  parallel_ranges(static_cast<int64_t>(tiles.size()), 1, [&](int64_t begin, int64_t end) {
    alignas(64) float tile[kPanel * kPanel];
    for (int64_t t = begin; t < end; ++t) {
      const auto [i, j] = tiles[static_cast<size_t>(t)];
      const uint32_t* const a = rows.values_.data() + i * steps * kPanel;
      const uint32_t* const b = columns.values_.data() + j * steps * kPanel;
      if (rows.bf16_)
        compute_tile<Bf16Pairs>(a, b, steps, tile);
      else
        compute_tile<Fp32>(a, b, steps, tile);
      add_tile(data + i * kPanel * stride + j * kPanel, stride, tile,
               std::min(kPanel, sum.size(0) - i * kPanel), std::min(kPanel, sum.size(1) - j * kPanel));
    }
  });
}

}  // namespace efface
