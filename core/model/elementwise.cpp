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

/// How ATen names the forms of GELU.
const char* gelu_form(Activation activation) { return activation == Activation::gelu_tanh ? "tanh" : "none"; }

at::Tensor activated(const at::Tensor& gate, Activation activation) {
  return activation == Activation::silu ? at::silu(gate) : at::gelu(gate, gelu_form(activation));
}

class GatedFunction : public torch::autograd::Function<GatedFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up, int64_t activation_number) {
    const auto activation = static_cast<Activation>(activation_number);
    context->save_for_backward({gate_up});
    context->saved_data["activation"] = activation_number;
    if (activation == Activation::silu && cpu_kernels::suit(gate_up)) return cpu_kernels::swiglu(gate_up);
    const auto halves = gate_up.chunk(2, 1);
    return activated(halves[0], activation).mul_(halves[1]);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor gate_up = context->get_saved_variables()[0];
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const at::Tensor& dy = gradients[0];
    if (activation == Activation::silu && cpu_kernels::suit(gate_up))
      return {cpu_kernels::swiglu_backward(dy, gate_up), at::Tensor()};
    const auto halves = gate_up.chunk(2, 1);
    at::Tensor result = at::empty_like(gate_up);
    const auto d_halves = result.chunk(2, 1);
    const at::Tensor d_activated = dy * halves[1];
    d_halves[0].copy_(activation == Activation::silu
                          ? at::silu_backward(d_activated, halves[0])
                          : at::gelu_backward(d_activated, halves[0], gelu_form(activation)));
    d_halves[1].copy_(activated(halves[0], activation).mul_(dy));
    return {result, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

at::Tensor gated(const at::Tensor& gate_up, Activation activation) {
  return GatedFunction::apply(gate_up, static_cast<int64_t>(activation));
}

void rotate_(at::Tensor& x, int64_t heads, int64_t head_dim, const RotaryTable& table, bool adjoint) {
  const at::NoGradGuard no_grad;
  if (cpu_kernels::suit(x)) return cpu_kernels::rotate_(x, heads, head_dim, table.cos, table.sin, adjoint);
  const int64_t half = table.cos.size(1);
  const at::Tensor each = x.narrow(1, 0, heads * head_dim).view({x.size(0), heads, head_dim});
  const at::Tensor first = each.narrow(2, 0, half), second = each.narrow(2, half, half);
  const at::Tensor cos = table.cos.unsqueeze(1);
  const at::Tensor sin = adjoint ? table.sin.unsqueeze(1).neg() : table.sin.unsqueeze(1);
  const at::Tensor rotated = first * cos - second * sin;
  second.copy_(second * cos + first * sin);
  first.copy_(rotated);
}

}  // namespace efface
