#include "core/model/cpu_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "distributed/parallel_ranges.hpp"

// One body, compiled for each level of vector units and chosen when the program starts.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define EFFACE_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EFFACE_VECTORISED
#endif
#define EFFACE_INLINE inline __attribute__((always_inline))

namespace efface::cpu_kernels {
namespace {

constexpr int64_t kLanes = 32;                // partial sums that keep the vector units busy
constexpr int64_t kGrain = int64_t{1} << 14;  // elements below which a second thread does not pay

EFFACE_INLINE float load(const float* p) { return *p; }
EFFACE_INLINE float load(const at::BFloat16* p) {
  return std::bit_cast<float>(static_cast<uint32_t>(p->x) << 16);
}
EFFACE_INLINE void store(float* p, float value) { *p = value; }
EFFACE_INLINE void store(at::BFloat16* p, float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  p->x = static_cast<uint16_t>(value == value ? rounded : 0x7fc0u);
}

/// exp of x clamped to +-87, by 2^n * exp(r), |r| <= ln(2) / 2, with the Taylor series to r^7: within 2 units
/// in the last place. The clamp is in integers, which vectorise on every level; NaN does not survive it, but
/// every caller also multiplies by, or subtracts, what was NaN.
EFFACE_INLINE float exponential(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  x = std::bit_cast<float>(std::min(bits & 0x7fffffffu, std::bit_cast<uint32_t>(87.0f)) |
                           (bits & 0x80000000u));
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u - std::bit_cast<uint32_t>(kRound)) << 23;
  return series * std::bit_cast<float>(exponent);
}

EFFACE_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/// sum over i of term(i), in a fixed order that vectorises.
template <typename Term>
EFFACE_INLINE float sum(int64_t n, Term term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
  float total = 0;
  for (; i < n; ++i) total += term(i);
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  return total + lanes[0];
}

template <typename T>
EFFACE_VECTORISED float rms_norm_row(const T* x, const float* weight, T* y, int64_t n, float eps) {
  const float squares = sum(
      n, [&](int64_t i) __attribute__((always_inline)) { return load(x + i) * load(x + i); });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) store(y + i, load(x + i) * scale * weight[i]);
  return scale;
}

/// With n = x * scale and g = dy * weight: dx = scale (g - n mean(g n)).
template <typename T>
EFFACE_VECTORISED void rms_norm_backward_row(const T* dy, const T* x, const float* weight, float scale, T* dx,
                                             int64_t n) {
  const float product = sum(
      n, [&](int64_t i) __attribute__((always_inline)) { return load(dy + i) * weight[i] * load(x + i); });
  const float projection = product * scale * scale / static_cast<float>(n);
  for (int64_t i = 0; i < n; ++i)
    store(dx + i, scale * (load(dy + i) * weight[i] - load(x + i) * projection));
}

template <typename T>
EFFACE_VECTORISED void swiglu_row(const T* gate, const T* up, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate + i);
    store(y + i, g * sigmoid(g) * load(up + i));
  }
}

template <typename T>
EFFACE_VECTORISED void swiglu_backward_row(const T* dy, const T* gate, const T* up, T* d_gate, T* d_up,
                                           int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate + i), d = load(dy + i), s = sigmoid(g);
    store(d_up + i, d * g * s);
    store(d_gate + i, d * load(up + i) * s * (1.0f + g * (1.0f - s)));
  }
}

template <typename T>
EFFACE_VECTORISED void rotate_row(T* x, int64_t heads, int64_t head_dim, int64_t half, const float* cos,
                                  const float* sin, float sign) {
  for (int64_t head = 0; head < heads; ++head) {
    T* first = x + head * head_dim;
    T* second = first + half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = load(first + i), b = load(second + i), c = cos[i], s = sign * sin[i];
      store(first + i, a * c - b * s);
      store(second + i, b * c + a * s);
    }
  }
}

EFFACE_VECTORISED float exponentiate_row(float* logits, float maximum, int64_t n) {
  return sum(
      n, [&](int64_t i)
             __attribute__((always_inline)) { return logits[i] = exponential(logits[i] - maximum); });
}

/// visit(begin, end) for ranges of rows, worth a thread each.
template <typename Visit>
void parallel_rows(int64_t rows, int64_t row_elements, Visit visit) {
  parallel_ranges(rows, kGrain / std::max<int64_t>(1, row_elements), visit);
}

/// body(T*) with T the type of x.
template <typename Body>
void dispatch(const at::Tensor& x, Body body) {
  if (x.scalar_type() == at::kFloat)
    body(static_cast<float*>(nullptr));
  else
    body(static_cast<at::BFloat16*>(nullptr));
}

}  // namespace

bool suit(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

at::Tensor rms_norm(const at::Tensor& x_any, const at::Tensor& weight, double eps, at::Tensor& scale) {
  const at::Tensor x = x_any.contiguous(), w = weight.to(at::kFloat).contiguous();
  at::Tensor y = at::empty_like(x);
  const int64_t n = x.size(1);
  scale = at::empty({x.size(0), 1}, x.options().dtype(at::kFloat));
  dispatch(x, [&]<typename T>(T*) {
    const T* from = x.const_data_ptr<T>();
    const float* weights = w.const_data_ptr<float>();
    T* to = y.data_ptr<T>();
    float* scales = scale.data_ptr<float>();
    parallel_rows(x.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        scales[i] = rms_norm_row(from + i * n, weights, to + i * n, n, static_cast<float>(eps));
    });
  });
  return y;
}

at::Tensor rms_norm_backward(const at::Tensor& dy_any, const at::Tensor& x_any, const at::Tensor& weight,
                             const at::Tensor& scale) {
  const at::Tensor x = x_any.contiguous(), dy = dy_any.to(x.scalar_type()).contiguous(),
                   w = weight.to(at::kFloat).contiguous();
  at::Tensor dx = at::empty_like(x);
  const int64_t n = x.size(1);
  dispatch(x, [&]<typename T>(T*) {
    const T *from = x.const_data_ptr<T>(), *gradient = dy.const_data_ptr<T>();
    const float* weights = w.const_data_ptr<float>();
    T* to = dx.data_ptr<T>();
    const float* scales = scale.const_data_ptr<float>();
    parallel_rows(x.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        rms_norm_backward_row(gradient + i * n, from + i * n, weights, scales[i], to + i * n, n);
    });
  });
  return dx;
}

at::Tensor swiglu(const at::Tensor& gate_up_any) {
  const at::Tensor gate_up = gate_up_any.contiguous();
  const int64_t n = gate_up.size(1) / 2;
  at::Tensor y = at::empty({gate_up.size(0), n}, gate_up.options());
  dispatch(y, [&]<typename T>(T*) {
    const T* from = gate_up.const_data_ptr<T>();
    T* to = y.data_ptr<T>();
    parallel_rows(y.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        swiglu_row(from + 2 * i * n, from + (2 * i + 1) * n, to + i * n, n);
    });
  });
  return y;
}

at::Tensor swiglu_backward(const at::Tensor& dy_any, const at::Tensor& gate_up_any) {
  const at::Tensor gate_up = gate_up_any.contiguous(), dy = dy_any.contiguous();
  const int64_t n = dy.size(1);
  at::Tensor result = at::empty_like(gate_up);
  dispatch(dy, [&]<typename T>(T*) {
    const T *from = gate_up.const_data_ptr<T>(), *gradient = dy.const_data_ptr<T>();
    T* to = result.data_ptr<T>();
    parallel_rows(dy.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t gate = 2 * i * n, up = gate + n;
        swiglu_backward_row(gradient + i * n, from + gate, from + up, to + gate, to + up, n);
      }
    });
  });
  return result;
}

void rotate_(at::Tensor& x, int64_t heads, int64_t head_dim, const at::Tensor& cos, const at::Tensor& sin,
             bool adjoint) {
  const int64_t half = cos.size(1), stride = x.stride(0);
  dispatch(x, [&]<typename T>(T*) {
    T* values = x.data_ptr<T>();
    const float *cosines = cos.const_data_ptr<float>(), *sines = sin.const_data_ptr<float>();
    parallel_rows(x.size(0), heads * half, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        rotate_row(values + i * stride, heads, head_dim, half, cosines + i * half, sines + i * half,
                   adjoint ? -1.0f : 1.0f);
    });
  });
}

at::Tensor exponentiate_(at::Tensor& logits, const at::Tensor& maximum) {
  const int64_t n = logits.size(1);
  at::Tensor sums = at::empty({logits.size(0)}, logits.options());
  float *values = logits.data_ptr<float>(), *totals = sums.data_ptr<float>();
  const float* maxima = maximum.const_data_ptr<float>();
  parallel_rows(logits.size(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) totals[i] = exponentiate_row(values + i * n, maxima[i], n);
  });
  return sums;
}

}  // namespace efface::cpu_kernels
