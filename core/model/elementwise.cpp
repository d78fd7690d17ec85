#include "core/model/elementwise.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/model/cpu_kernels.hpp"

namespace efface {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    if (cpu_kernels::suit(x)) {
      at::Tensor scale;
      const at::Tensor y = cpu_kernels::rms_norm(x, weight, eps, scale);
      context->save_for_backward({x, weight, scale});
      return y;
    }
    const auto wide = accumulation_type(x.scalar_type());
    const at::Tensor values = x.to(wide);
    const at::Tensor scale = values.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
    context->save_for_backward({x, weight, scale});
    return values.mul(scale).mul_(weight.to(wide)).to(x.scalar_type());
  }

  /// With n = x * scale and g = dy * weight: dx = scale (g - n mean(g n)).
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
    if (cpu_kernels::suit(x))
      return {cpu_kernels::rms_norm_backward(gradients[0], x, weight, scale), at::Tensor(), at::Tensor()};
    const at::Tensor normalised = x.to(scale.scalar_type()).mul(scale);
    at::Tensor g = gradients[0].to(scale.scalar_type()).mul(weight.to(scale.scalar_type()));
    const at::Tensor projection = at::mul(g, normalised).mean(-1, /*keepdim=*/true);
    g.addcmul_(normalised, projection, -1).mul_(scale);
    return {g.to(x.scalar_type()), at::Tensor(), at::Tensor()};
  }
};

class SwigluFunction : public torch::autograd::Function<SwigluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    context->save_for_backward({gate_up});
    if (cpu_kernels::suit(gate_up)) return cpu_kernels::swiglu(gate_up);
    const auto halves = gate_up.chunk(2, 1);
    return at::silu(halves[0]).mul_(halves[1]);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor gate_up = context->get_saved_variables()[0];
    const at::Tensor& dy = gradients[0];
    if (cpu_kernels::suit(gate_up)) return {cpu_kernels::swiglu_backward(dy, gate_up)};
    const auto halves = gate_up.chunk(2, 1);
    at::Tensor result = at::empty_like(gate_up);
    const auto d_halves = result.chunk(2, 1);
    d_halves[0].copy_(at::silu_backward(dy * halves[1], halves[0]));
    d_halves[1].copy_(at::silu(halves[0]).mul_(dy));
    return {result};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

at::Tensor swiglu(const at::Tensor& gate_up) { return SwigluFunction::apply(gate_up); }

RotaryTable make_rotary_table(const at::Tensor& positions, int64_t head_dim, double theta,
                              at::ScalarType dtype) {
  const auto options = positions.options().dtype(accumulation_type(dtype));
  const at::Tensor exponents = at::arange(0, head_dim, 2, options).div_(static_cast<double>(head_dim));
  const at::Tensor frequencies = at::pow(theta, exponents).reciprocal_();
  const at::Tensor angles = at::outer(positions.to(options.dtype()), frequencies);
  return {angles.cos(), angles.sin()};
}

void rotate_(at::Tensor& x, int64_t heads, const RotaryTable& table, bool inverse) {
  const at::NoGradGuard no_grad;
  if (cpu_kernels::suit(x)) return cpu_kernels::rotate_(x, heads, table.cos, table.sin, inverse);
  const int64_t half = table.cos.size(1);
  const at::Tensor halves = x.narrow(1, 0, heads * 2 * half).view({x.size(0), heads, 2, half});
  const at::Tensor first = halves.select(2, 0), second = halves.select(2, 1);
  const at::Tensor cos = table.cos.unsqueeze(1);
  const at::Tensor sin = inverse ? table.sin.unsqueeze(1).neg() : table.sin.unsqueeze(1);
  const at::Tensor rotated = first * cos - second * sin;
  second.copy_(second * cos + first * sin);
  first.copy_(rotated);
}

}  // namespace efface
