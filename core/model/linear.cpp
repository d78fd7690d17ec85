#include "core/model/linear.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>

#include "core/model/product.hpp"
#include "distributed/collectives.hpp"

namespace efface {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int kMaxParts = 3;

/// Where each adapter's result goes; entries of absent adapters have rank 0.
struct AdapterLayout {
  std::vector<int64_t> offset, rows, rank;
  std::vector<double> scale;
};

/// y = x W^T + bias, then y[:, part] += (scale x A_part^T) B_part^T for each part with an adapter. `a` holds
/// the parts' A one below the other. One node, so that x is kept once and dx is accumulated in place.
class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  using MaybeTensor = std::optional<at::Tensor>;

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const MaybeTensor& maybe_a, const MaybeTensor& b0, const MaybeTensor& b1,
                            const MaybeTensor& b2, const MaybeTensor& bias, AdapterLayout layout) {
    at::Tensor y = matrix_product(x, weight.t());
    if (bias) y.add_(*bias);
    const at::Tensor a = maybe_a.value_or(at::Tensor());
    const std::array<at::Tensor, kMaxParts> b = {b0.value_or(at::Tensor()), b1.value_or(at::Tensor()),
                                                 b2.value_or(at::Tensor())};
    at::Tensor reduced;  // scale x A^T, [tokens, sum of ranks]
    if (a.defined()) {
      reduced = matrix_product(x, a.t());
      for_each_adapter(layout, [&](int i, int64_t first, int64_t rank) {
        at::Tensor part = reduced.narrow(1, first, rank);
        if (layout.scale[i] != 1) part.mul_(layout.scale[i]);
        y.narrow(1, layout.offset[i], layout.rows[i]).addmm_(part, b[i].t());
      });
    }
    // x is needed for dW and dA only.
    const bool keep_input = a.defined() || weight.requires_grad();
    context->save_for_backward({keep_input ? x : at::Tensor(), weight, a, reduced, b[0], b[1], b[2]});
    context->saved_data["offset"] = layout.offset;
    context->saved_data["rows"] = layout.rows;
    context->saved_data["rank"] = layout.rank;
    context->saved_data["scale"] = layout.scale;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &a = saved[2], &reduced = saved[3];
    const at::Tensor dy = gradients[0].contiguous();
    variable_list result(8);

    if (context->needs_input_grad(0)) result[0] = matrix_product(dy, weight);
    if (context->needs_input_grad(1)) result[1] = at::mm(dy.t(), x);
    if (!a.defined()) return result;

    const AdapterLayout layout{
        context->saved_data["offset"].toIntVector(), context->saved_data["rows"].toIntVector(),
        context->saved_data["rank"].toIntVector(), context->saved_data["scale"].toDoubleVector()};
    at::Tensor d_reduced = at::empty_like(reduced);
    for_each_adapter(layout, [&](int i, int64_t first, int64_t rank) {
      const at::Tensor dy_part = dy.narrow(1, layout.offset[i], layout.rows[i]);
      at::Tensor d_part = d_reduced.narrow(1, first, rank);
      at::mm_out(d_part, dy_part, saved[4 + i]);
      if (layout.scale[i] != 1) d_part.mul_(layout.scale[i]);
      // dB^T = reduced^T dy takes half the time of dB = dy^T reduced.
      result[3 + i] = at::mm(reduced.narrow(1, first, rank).t(), dy_part).t().contiguous();
    });
    result[2] = at::mm(d_reduced.t(), x);
    if (result[0].defined()) result[0].addmm_(d_reduced, a);
    return result;
  }

 private:
  template <typename Visit>
  static void for_each_adapter(const AdapterLayout& layout, Visit visit) {
    int64_t first = 0;
    for (int i = 0; i < static_cast<int>(layout.rank.size()); ++i) {
      if (layout.rank[i] == 0) continue;
      visit(i, first, layout.rank[i]);
      first += layout.rank[i];
    }
  }
};

/// One product with `weight`, whose rows from `origin` on are the parts' [begin, end).
at::Tensor apply_parts(const FusedLinear& linear, size_t begin, size_t end, const at::Tensor& weight,
                       const at::Tensor& x, bool with_adapters) {
  AdapterLayout layout;
  std::vector<at::Tensor> a;
  std::array<std::optional<at::Tensor>, kMaxParts> b;
  for (size_t i = begin; i < end; ++i) {
    const LinearPart& part = linear.parts[i];
    const bool present = with_adapters && part.adapter.has_value();
    layout.offset.push_back(part.offset - linear.parts[begin].offset);
    layout.rows.push_back(part.rows);
    layout.rank.push_back(present ? part.adapter->a.size(0) : 0);
    layout.scale.push_back(present ? part.adapter->scale : 1);
    if (!present) continue;
    a.push_back(part.adapter->a.to(x.scalar_type()));
    b[i - begin] = copy_to_group(part.adapter->b, part.replicas).to(x.scalar_type());
  }
  std::optional<at::Tensor> stacked;
  if (!a.empty()) stacked = a.size() == 1 ? a[0] : at::cat(a);
  std::optional<at::Tensor> bias;
  if (linear.bias.defined() && !is_row_parallel(linear.parts[begin].projection)) {
    const LinearPart& last = linear.parts[end - 1];
    const int64_t first = linear.parts[begin].offset;
    bias = linear.bias.narrow(0, first, last.offset + last.rows - first);
  }
  return LinearFunction::apply(x, weight.to(x.scalar_type()), stacked, b[0], b[1], b[2], bias, layout);
}

}  // namespace

LinearPart& FusedLinear::part(Projection projection) {
  for (LinearPart& part : parts)
    if (part.projection == projection) return part;
  return parts.front();
}

at::Tensor FusedLinear::local(const LinearPart& part) const {
  return part.trained.defined() ? part.trained.detach() : weight.narrow(0, part.offset, part.rows);
}

at::Tensor apply_linear(const FusedLinear& linear, const at::Tensor& x, bool with_adapters) {
  bool any_trained = false;
  for (const LinearPart& part : linear.parts) any_trained = any_trained || part.trained.defined();
  if (!any_trained) return apply_parts(linear, 0, linear.parts.size(), linear.weight, x, with_adapters);

  std::vector<at::Tensor> outputs;
  for (size_t i = 0; i < linear.parts.size(); ++i) {
    const LinearPart& part = linear.parts[i];
    const at::Tensor weight =
        part.trained.defined() ? copy_to_group(part.trained, part.replicas) : linear.local(part);
    outputs.push_back(apply_parts(linear, i, i + 1, weight, x, with_adapters));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 1);
}

}  // namespace efface
