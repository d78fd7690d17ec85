#include "core/model/attention.hpp"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace efface {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Padding up to a quarter of a row is cheaper than one more call.
bool fits(int64_t length, int64_t longest) { return longest - length <= longest / 4 + 4; }

at::Tensor index_tensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

RowGroup make_group(const std::vector<int64_t>& rows, const std::vector<int64_t>& offsets,
                    at::Device device) {
  RowGroup group;
  group.rows = static_cast<int64_t>(rows.size());
  for (int64_t row : rows) group.length = std::max(group.length, offsets[row + 1] - offsets[row]);
  group.first_token = offsets[rows[0]];
  bool contiguous = true;
  for (int64_t i = 0; i < group.rows; ++i)
    contiguous = contiguous && offsets[rows[i]] == group.first_token + i * group.length &&
                 offsets[rows[i] + 1] - offsets[rows[i]] == group.length;
  if (contiguous) return group;

  std::vector<int64_t> gather, tokens, places;
  for (int64_t i = 0; i < group.rows; ++i) {
    const int64_t begin = offsets[rows[i]], length = offsets[rows[i] + 1] - begin;
    for (int64_t j = 0; j < group.length; ++j) {
      gather.push_back(begin + std::min(j, length - 1));
      if (j >= length) continue;
      tokens.push_back(begin + j);
      places.push_back(i * group.length + j);
    }
  }
  group.gather = index_tensor(gather, device);
  group.tokens = index_tensor(tokens, device);
  group.places = index_tensor(places, device);
  return group;
}

struct Heads {
  at::Tensor q, k, v;
};

/// [rows * length, width] -> views [rows, heads, length, head_dim].
Heads split_heads(const at::Tensor& qkv, const AttentionShape& shape, int64_t rows, int64_t length) {
  const int64_t all = shape.heads + 2 * shape.kv_heads;
  const at::Tensor x = qkv.view({rows, length, all, shape.head_dim}).transpose(1, 2);
  return {x.narrow(1, 0, shape.heads), x.narrow(1, shape.heads, shape.kv_heads),
          x.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads)};
}

at::Tensor select_group(const at::Tensor& x, const RowGroup& group) {
  return group.gather.defined() ? x.index_select(0, group.gather)
                                : x.narrow(0, group.first_token, group.rows * group.length);
}

/// Copies the group's padded [rows * length, ...] to its tokens of `x`.
void return_group(at::Tensor& x, const RowGroup& group, const at::Tensor& padded) {
  if (group.gather.defined())
    x.index_copy_(0, group.tokens, padded.index_select(0, group.places).to(x.scalar_type()));
  else
    x.narrow(0, group.first_token, group.rows * group.length).copy_(padded);
}

/// [rows, heads, length, head_dim] -> [rows * length, heads * head_dim].
at::Tensor merge_heads(const at::Tensor& x) {
  return x.transpose(1, 2).reshape({x.size(0) * x.size(2), x.size(1) * x.size(3)});
}

/// Plan and shape ride along in the graph.
struct PlanHolder : torch::CustomClassHolder {
  PlanHolder(std::shared_ptr<const AttentionPlan> held, const AttentionShape& held_shape)
      : plan(std::move(held)), shape(held_shape) {}
  std::shared_ptr<const AttentionPlan> plan;
  AttentionShape shape;
};

/// bf16 goes through the fp32 flash kernel: on short rows its own takes six times as long backwards.
at::ScalarType attention_type(at::ScalarType dtype, at::Device device) {
  return device.is_cpu() ? accumulation_type(dtype) : dtype;
}
at::Tensor widen(const at::Tensor& x) { return x.to(attention_type(x.scalar_type(), x.device())); }

/// [length, length]: 0 at the key of a query's own place and of those up to window - 1 before it.
at::Tensor make_mask(int64_t length, int64_t window, const at::TensorOptions& options) {
  const at::Tensor hidden = at::full({length, length}, -std::numeric_limits<double>::infinity(), options);
  at::Tensor mask = hidden.triu(1);
  if (window > 0 && window < length) mask.add_(hidden.tril(-window));
  return mask;
}

/// The group's mask for this layer; nothing where plain causal attention is meant.
std::optional<at::Tensor> mask_of(const RowGroup& group, const AttentionShape& shape) {
  if (!shape.needs_mask(group.length)) return std::nullopt;
  return group.masks.at(shape.window);
}

/// softmax(cap tanh(scale q k^T / cap) + mask) v, or without the cap; q [rows, heads, a, d], k and v
/// [rows, kv_heads, b, d]; no mask: causal. Differentiable.
at::Tensor attend_heads(const Heads& heads, const std::optional<at::Tensor>& mask,
                        const AttentionShape& shape) {
  if (shape.softcap == 0)
    return at::scaled_dot_product_attention(heads.q, heads.k, heads.v, mask, 0.0,
                                            /*is_causal=*/!mask.has_value(), shape.score_scale(),
                                            /*enable_gqa=*/true);
  const int64_t share = shape.heads / shape.kv_heads;  // query heads that read one key-value head
  const at::Tensor keys = heads.k.repeat_interleave(share, 1), values = heads.v.repeat_interleave(share, 1);
  at::Tensor scores = at::matmul(heads.q, keys.transpose(2, 3)) * (shape.score_scale() / shape.softcap);
  scores = scores.tanh() * shape.softcap + *mask;
  const auto wide = accumulation_type(scores.scalar_type());
  return at::matmul(at::softmax(scores, -1, wide).to(values.scalar_type()), values);
}

/// RoPE in place, then the CPU flash kernel for each group; the backward writes dq, dk, dv into one fresh
/// matrix and turns it back in place.
class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, AttentionShape shape,
                            std::shared_ptr<const AttentionPlan> plan) {
    at::Tensor rotated = qkv.detach();
    rotate_queries_keys_(rotated, shape, plan->rotary);
    at::Tensor output = at::empty({qkv.size(0), shape.heads * shape.head_dim}, qkv.options());
    variable_list kept = {rotated, output};
    const at::Tensor wide = widen(rotated);
    for (const RowGroup& group : plan->groups) {
      const Heads heads = split_heads(select_group(wide, group), shape, group.rows, group.length);
      const auto mask = mask_of(group, shape);
      auto [attended, normaliser] = at::_scaled_dot_product_flash_attention_for_cpu(
          heads.q, heads.k, heads.v, 0.0, /*is_causal=*/!mask.has_value(), mask, shape.score_scale());
      return_group(output, group, merge_heads(attended));
      kept.push_back(normaliser);
    }
    context->save_for_backward(kept);
    context->saved_data["plan"] = c10::IValue::make_capsule(c10::make_intrusive<PlanHolder>(plan, shape));
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto dtype = saved[0].scalar_type();
    const at::Tensor rotated = widen(saved[0]), output = widen(saved[1]);
    const at::Tensor d_all = widen(gradients[0]).contiguous();
    const auto held = context->saved_data["plan"].toCapsule();
    const auto& holder = *static_cast<PlanHolder*>(held.get());
    const AttentionShape& shape = holder.shape;
    const AttentionPlan& plan = *holder.plan;

    at::Tensor d_qkv = at::empty_like(rotated);
    for (size_t i = 0; i < plan.groups.size(); ++i) {
      const RowGroup& group = plan.groups[i];
      const Heads heads = split_heads(select_group(rotated, group), shape, group.rows, group.length);
      const auto as_heads = [&](const at::Tensor& x) {
        return select_group(x, group)
            .view({group.rows, group.length, shape.heads, shape.head_dim})
            .transpose(1, 2);
      };
      // Padded places repeat a row's last token, but must bring no gradient.
      at::Tensor d_output = d_all;
      if (group.gather.defined()) {
        at::Tensor padded = at::zeros({group.rows * group.length, d_output.size(1)}, d_output.options());
        padded.index_copy_(0, group.places, d_output.index_select(0, group.tokens));
        d_output = padded.view({group.rows, group.length, shape.heads, shape.head_dim}).transpose(1, 2);
      } else {
        d_output = as_heads(d_output);
      }
      const auto mask = mask_of(group, shape);
      auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          d_output, heads.q, heads.k, heads.v, as_heads(output), saved[2 + i], 0.0,
          /*is_causal=*/!mask.has_value(), mask, shape.score_scale());
      return_group(d_qkv, group, merge_heads(at::cat({dq, dk, dv}, 1)));
    }
    rotate_queries_keys_(d_qkv, shape, plan.rotary, /*adjoint=*/true);
    return {d_qkv.to(dtype), at::Tensor(), at::Tensor()};
  }
};

class RotateFunction : public torch::autograd::Function<RotateFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, AttentionShape shape,
                            std::shared_ptr<const AttentionPlan> plan) {
    at::Tensor rotated = x.clone();
    rotate_queries_keys_(rotated, shape, plan->rotary);
    context->saved_data["plan"] = c10::IValue::make_capsule(c10::make_intrusive<PlanHolder>(plan, shape));
    return rotated;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto held = context->saved_data["plan"].toCapsule();
    const auto& holder = *static_cast<PlanHolder*>(held.get());
    at::Tensor gradient = gradients[0].clone(at::MemoryFormat::Contiguous);
    rotate_queries_keys_(gradient, holder.shape, holder.plan->rotary, /*adjoint=*/true);
    return {gradient, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::shared_ptr<const AttentionPlan> plan_attention(const RaggedBatch& batch,
                                                    const std::vector<RopeConfig>& ropes,
                                                    const std::vector<AttentionShape>& layers,
                                                    at::ScalarType dtype) {
  auto plan = std::make_shared<AttentionPlan>();
  const at::Device device = batch.positions.device();
  for (const RopeConfig& rope : ropes)
    plan->rotary.push_back(
        make_rotary_table(rope, layers.front().head_dim, batch.positions, batch.offsets, dtype));
  const auto length = [&](int64_t row) { return batch.offsets[row + 1] - batch.offsets[row]; };
  std::vector<int64_t> order(batch.rows());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  for (size_t begin = 0, end; begin < order.size(); begin = end) {
    end = begin;
    while (end < order.size() && fits(length(order[end]), length(order[begin]))) ++end;
    std::vector<int64_t> rows(order.begin() + begin, order.begin() + end);
    std::sort(rows.begin(), rows.end());
    RowGroup group = make_group(rows, batch.offsets, device);
    for (const AttentionShape& layer : layers)
      if (layer.needs_mask(group.length) && group.masks.count(layer.window) == 0)
        group.masks[layer.window] = make_mask(group.length, layer.window,
                                              at::TensorOptions(device).dtype(attention_type(dtype, device)));
    plan->groups.push_back(std::move(group));
  }
  return plan;
}

at::Tensor normalise_heads(const at::Tensor& qkv, const AttentionShape& shape, const at::Tensor& q_weight,
                           const at::Tensor& k_weight, double eps) {
  const auto part = [&](int64_t first, int64_t heads) {
    return qkv.narrow(1, first * shape.head_dim, heads * shape.head_dim);
  };
  const auto normalised = [&](const at::Tensor& x, const at::Tensor& weight) {
    return rms_norm(x.reshape({-1, shape.head_dim}), weight, eps).view({x.size(0), x.size(1)});
  };
  return at::cat(
      {normalised(part(0, shape.heads), q_weight), normalised(part(shape.heads, shape.kv_heads), k_weight),
       part(shape.heads + shape.kv_heads, shape.kv_heads)},
      1);
}

void rotate_queries_keys_(at::Tensor& qkv, const AttentionShape& shape,
                          const std::vector<RotaryTable>& tables, bool adjoint) {
  if (shape.rope >= 0)
    rotate_(qkv, shape.heads + shape.kv_heads, shape.head_dim, tables.at(shape.rope), adjoint);
}

at::Tensor attend(const at::Tensor& qkv, const AttentionShape& shape,
                  std::shared_ptr<const AttentionPlan> plan) {
  // The CPU's flash kernel knows no cap.
  if (!qkv.is_cpu() || shape.softcap > 0) return attend_composed(qkv, shape, std::move(plan));
  return AttentionFunction::apply(qkv, shape, std::move(plan));
}

at::Tensor attend_composed(const at::Tensor& qkv, const AttentionShape& shape,
                           std::shared_ptr<const AttentionPlan> plan) {
  const at::Tensor rotated = RotateFunction::apply(qkv, shape, plan);
  // On the CPU only a cap leads here, and its scores are formed in the wider type.
  const at::Tensor wide = shape.softcap > 0 ? widen(rotated) : rotated;
  at::Tensor output = at::zeros({qkv.size(0), shape.heads * shape.head_dim}, qkv.options());
  for (const RowGroup& group : plan->groups) {
    const Heads heads = split_heads(select_group(wide, group), shape, group.rows, group.length);
    auto mask = mask_of(group, shape);
    if (mask) mask = mask->to(wide.scalar_type());
    const at::Tensor attended = merge_heads(attend_heads(heads, mask, shape)).to(qkv.scalar_type());
    if (group.rows * group.length == qkv.size(0) && !group.gather.defined()) return attended;
    const at::Tensor tokens =
        group.gather.defined()
            ? group.tokens
            : at::arange(group.first_token, group.first_token + group.rows * group.length, at::kLong)
                  .to(qkv.device());
    output = output.index_copy(0, tokens,
                               group.gather.defined() ? attended.index_select(0, group.places) : attended);
  }
  return output;
}

at::Tensor attend_rotated(const at::Tensor& rotated_qkv, const AttentionShape& shape,
                          const AttentionPlan& plan) {
  const at::NoGradGuard no_grad;
  at::Tensor output = at::empty({rotated_qkv.size(0), shape.heads * shape.head_dim}, rotated_qkv.options());
  const at::Tensor wide = widen(rotated_qkv);
  for (const RowGroup& group : plan.groups) {
    const Heads heads = split_heads(select_group(wide, group), shape, group.rows, group.length);
    return_group(output, group, merge_heads(attend_heads(heads, mask_of(group, shape), shape)));
  }
  return output;
}

KeyValueCache make_cache(const AttentionShape& shape, int64_t rows, int64_t capacity, at::ScalarType dtype,
                         at::Device device) {
  const auto options = at::TensorOptions(device).dtype(attention_type(dtype, device));
  const std::vector<int64_t> size = {rows, shape.kv_heads, capacity, shape.head_dim};
  return {at::zeros(size, options), at::zeros(size, options)};
}

void store_keys_values(KeyValueCache& cache, const at::Tensor& rotated_qkv, const AttentionShape& shape,
                       const at::Tensor& rows, const at::Tensor& positions) {
  const at::Tensor heads = widen(rotated_qkv).view({rotated_qkv.size(0), -1, shape.head_dim});
  // Index tensors on both sides of a slice put the indexed dimension first: [tokens, kv_heads, head_dim].
  using at::indexing::Slice;
  cache.keys.index_put_({rows, Slice(), positions}, heads.narrow(1, shape.heads, shape.kv_heads));
  cache.values.index_put_({rows, Slice(), positions},
                          heads.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads));
}

at::Tensor attend_to_cache(const at::Tensor& rotated_qkv, const AttentionShape& shape,
                           const KeyValueCache& cache, const at::Tensor& positions) {
  const int64_t rows = rotated_qkv.size(0), length = positions.max().item<int64_t>() + 1;
  const at::Tensor places = at::arange(length, positions.options()).unsqueeze(0);
  at::Tensor seen = places.le(positions.unsqueeze(1));
  if (shape.window > 0) seen.logical_and_(places.gt(positions.unsqueeze(1) - shape.window));
  const at::Tensor mask = at::zeros(seen.sizes(), cache.keys.options())
                              .masked_fill_(seen.logical_not(), -std::numeric_limits<double>::infinity())
                              .view({rows, 1, 1, length});
  const at::Tensor q = widen(rotated_qkv.narrow(1, 0, shape.heads * shape.head_dim))
                           .reshape({rows, shape.heads, 1, shape.head_dim});
  const Heads heads{q, cache.keys.narrow(2, 0, length), cache.values.narrow(2, 0, length)};
  return merge_heads(attend_heads(heads, mask, shape)).to(rotated_qkv.scalar_type());
}

}  // namespace efface
