#include "core/model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/model/elementwise.hpp"

namespace efface {
namespace {

/// theta^(2i / dim), [dim / 2].
at::Tensor wavelengths(double theta, int64_t dim, const at::TensorOptions& options) {
  return at::pow(theta, at::arange(0, dim, 2, options).div_(static_cast<double>(dim)));
}

/// Long wavelengths are divided by the factor, short ones kept, those between go over smoothly (Llama 3.1).
at::Tensor llama3_frequencies(const RopeConfig& rope, const at::Tensor& plain) {
  const auto original = static_cast<double>(rope.original_positions);
  const double low = original / rope.low_frequency_factor, high = original / rope.high_frequency_factor;
  const at::Tensor wavelength = plain.reciprocal() * (2 * std::numbers::pi);
  const at::Tensor divided = at::where(wavelength > low, plain / rope.factor, plain);
  const at::Tensor smooth = (wavelength.reciprocal() * original - rope.low_frequency_factor) /
                            (rope.high_frequency_factor - rope.low_frequency_factor);
  const at::Tensor between = (1 - smooth) * divided / rope.factor + smooth * divided;
  return at::where((wavelength < high).logical_or(wavelength > low), divided, between);
}

/// YaRN (Peng et al. 2023): features that turn often over the original context keep their frequency, those
/// that turn less than once are divided by the factor, a linear ramp lies between.
at::Tensor yarn_frequencies(const RopeConfig& rope, int64_t dim, const at::TensorOptions& options) {
  const auto feature_with_turns = [&](double turns) {
    return static_cast<double>(dim) *
           std::log(static_cast<double>(rope.original_positions) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double first = feature_with_turns(rope.beta_fast), last = feature_with_turns(rope.beta_slow);
  if (rope.truncate) first = std::floor(first), last = std::ceil(last);
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(dim - 1));
  constexpr double kNoRamp = 0.001;  // as transformers has it: a step instead of a division by zero
  if (first == last) last += kNoRamp;
  const at::Tensor divided_share = ((at::arange(dim / 2, options) - first) / (last - first)).clamp(0, 1);
  const at::Tensor lengths = wavelengths(rope.theta, dim, options);
  const at::Tensor kept_share = 1 - divided_share;
  return (lengths * rope.factor).reciprocal() * (1 - kept_share) + lengths.reciprocal() * kept_share;
}

/// The base grows with the row beyond what the model was trained for.
double dynamic_theta(const RopeConfig& rope, int64_t dim, int64_t length) {
  const auto original = static_cast<double>(rope.original_positions);
  const double seen = std::max(original, static_cast<double>(length));
  return rope.theta * std::pow(rope.factor * seen / original - (rope.factor - 1),
                               static_cast<double>(dim) / static_cast<double>(dim - 2));
}

}  // namespace

int64_t RopeConfig::rotary_dim(int64_t head_dim) const {
  return static_cast<int64_t>(static_cast<double>(head_dim) * partial);
}

bool RopeConfig::depends_on_length() const {
  return scaling == RopeScaling::dynamic || scaling == RopeScaling::longrope;
}

bool RopeConfig::recomputes_cache_at(int64_t length) const {
  return scaling == RopeScaling::longrope && length == original_positions + 1;
}

at::Tensor rope_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length,
                            const at::TensorOptions& options) {
  const int64_t dim = rope.rotary_dim(head_dim);
  switch (rope.scaling) {
    case RopeScaling::none:
      return wavelengths(rope.theta, dim, options).reciprocal_();
    case RopeScaling::linear:
      return wavelengths(rope.theta, dim, options).reciprocal_().div_(rope.factor);
    case RopeScaling::dynamic:
      return wavelengths(dynamic_theta(rope, dim, length), dim, options).reciprocal_();
    case RopeScaling::yarn:
      return yarn_frequencies(rope, dim, options);
    case RopeScaling::longrope: {
      const auto& factors = length > rope.original_positions ? rope.long_factors : rope.short_factors;
      return (at::tensor(factors, at::kDouble).to(options) * wavelengths(rope.theta, dim, options))
          .reciprocal_();
    }
    case RopeScaling::llama3:
      return llama3_frequencies(rope, wavelengths(rope.theta, dim, options).reciprocal_());
  }
  return {};
}

RotaryTable make_rotary_table(const RopeConfig& rope, int64_t head_dim, const at::Tensor& positions,
                              const std::vector<int64_t>& offsets, at::ScalarType dtype) {
  const auto options = positions.options().dtype(accumulation_type(dtype));
  const at::Tensor all = positions.to(options.dtype());
  at::Tensor angles;
  if (rope.depends_on_length() && offsets.size() > 1) {
    const at::Tensor on_cpu = positions.cpu();
    std::vector<at::Tensor> rows;
    for (size_t row = 0; row + 1 < offsets.size(); ++row) {
      const int64_t length = on_cpu[offsets[row + 1] - 1].item<int64_t>() + 1;
      rows.push_back(at::outer(all.slice(0, offsets[row], offsets[row + 1]),
                               rope_frequencies(rope, head_dim, length, options)));
    }
    angles = at::cat(rows);
  } else {
    angles = at::outer(all, rope_frequencies(rope, head_dim, 0, options));
  }
  if (rope.amplitude == 1) return {angles.cos(), angles.sin()};
  return {angles.cos().mul_(rope.amplitude), angles.sin().mul_(rope.amplitude)};
}

}  // namespace efface
