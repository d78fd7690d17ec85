#include "core/model/vocab_parallel.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "core/model/cpu_kernels.hpp"
#include "core/model/elementwise.hpp"
#include "core/model/product.hpp"

namespace efface {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows for which logits are held at a time: under 32 MiB of fp32, above which glibc's allocator returns a
/// buffer to the system after each use.
int64_t chunk_rows(const VocabShard& shard) {
  const int64_t rows = (int64_t{7} << 20) / std::max<int64_t>(1, shard.end - shard.begin);
  return std::max<int64_t>(16, rows / 16 * 16);
}

template <typename Visit>
void for_each_chunk(const VocabShard& shard, int64_t rows, Visit visit) {
  const int64_t step = chunk_rows(shard);
  for (int64_t begin = 0; begin < rows; begin += step) visit(begin, std::min(step, rows - begin));
}

/// This rank's logits of some rows, fp32 or fp64. bf16 products are rounded to bf16, as a bf16 model's are.
at::Tensor local_logits(const VocabShard& shard, const at::Tensor& hidden) {
  const auto dtype = shard.weight.scalar_type();
  at::Tensor logits = matrix_product(hidden.to(dtype), shard.weight.t()).to(accumulation_type(dtype));
  if (shard.softcap > 0) logits.div_(shard.softcap).tanh_().mul_(shard.softcap);
  return logits;
}

/// d capped / d plain of capped logits; undefined without a cap.
at::Tensor cap_slope(const VocabShard& shard, const at::Tensor& capped) {
  return shard.softcap > 0 ? 1 - (capped / shard.softcap).square_() : at::Tensor();
}

/// Where ids fall into this shard: [m] bool, and their local index (0 elsewhere).
std::pair<at::Tensor, at::Tensor> locate(const VocabShard& shard, const at::Tensor& ids) {
  const at::Tensor inside = ids.ge(shard.begin).logical_and_(ids.lt(shard.end));
  return {inside, (ids - shard.begin).mul_(inside)};
}

/// What exponentiate_ leaves of a chunk of logits: max [c] over the group, and this rank's sum of exp(logit -
/// max).
struct Normaliser {
  at::Tensor maximum, local_sum;
};

/// Turns logits [c, local vocab] into exp(logits - max) in place.
Normaliser exponentiate_(at::Tensor& logits, const VocabShard& shard) {
  at::Tensor maximum = at::amax(logits, 1);
  shard.group.all_reduce(maximum, Reduction::max);
  if (cpu_kernels::suit(logits)) return {maximum, cpu_kernels::exponentiate_(logits, maximum)};
  logits.sub_(maximum.unsqueeze(1)).exp_();
  return {maximum, logits.sum(1)};
}

/// Rows of weights over this rank's vocabulary -> the sum of head rows so weighted, [c, hidden]; the weights
/// are multiplied in place by the cap's slope, if there is one.
at::Tensor weighted_rows(const VocabShard& shard, const at::Tensor& weights, const at::Tensor& slope) {
  if (slope.defined()) weights.mul_(slope);
  return matrix_product(weights.to(shard.weight.scalar_type()), shard.weight).to(weights.scalar_type());
}

/// out[i] depends on hidden[i] alone, so its gradient is known up to the factor d out[i] when it is computed.
class RowwiseFunction : public torch::autograd::Function<RowwiseFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, at::Tensor values,
                            at::Tensor jacobian) {
    context->save_for_backward({jacobian});
    context->saved_data["dtype"] = static_cast<int64_t>(hidden.scalar_type());
    return values.clone();
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor jacobian = context->get_saved_variables()[0];
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    return {at::mul(jacobian, gradients[0].unsqueeze(1)).to(dtype), at::Tensor(), at::Tensor()};
  }
};

bool wants_gradient(const at::Tensor& hidden) { return at::GradMode::is_enabled() && hidden.requires_grad(); }

/// values[i] with d values[i] / d hidden[i] = jacobian[i]; each rank's part of it is summed over the group
/// here.
at::Tensor attach_jacobian(const VocabShard& shard, const at::Tensor& hidden, const at::Tensor& values,
                           const at::Tensor& jacobian) {
  if (!jacobian.defined()) return values;
  shard.group.all_reduce(jacobian);
  return RowwiseFunction::apply(hidden, values, jacobian);
}

}  // namespace

at::Tensor embed_tokens(const VocabShard& shard, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  if (shard.group.size() == 1) return shard.weight.index_select(0, ids);
  const auto [inside, local] = locate(shard, ids);
  at::Tensor rows = shard.weight.index_select(0, local).mul_(inside.unsqueeze(1));
  shard.group.all_reduce(rows);
  return rows;
}

at::Tensor vocab_log_probabilities(const VocabShard& shard, const at::Tensor& hidden, const at::Tensor& ids) {
  const auto wide = accumulation_type(shard.weight.scalar_type());
  const int64_t rows = hidden.size(0);
  at::Tensor values = at::empty({rows}, hidden.options().dtype(wide).requires_grad(false));
  at::Tensor jacobian;
  if (wants_gradient(hidden)) jacobian = at::empty({rows, hidden.size(1)}, values.options());
  {
    const at::NoGradGuard no_grad;
    for_each_chunk(shard, rows, [&](int64_t begin, int64_t count) {
      at::Tensor logits = local_logits(shard, hidden.narrow(0, begin, count));
      const auto [inside, local] = locate(shard, ids.narrow(0, begin, count));
      const at::Tensor target = logits.gather(1, local.unsqueeze(1)).squeeze(1);
      const at::Tensor slope = jacobian.defined() ? cap_slope(shard, logits) : at::Tensor();
      const auto [maximum, local_sum] = exponentiate_(logits, shard);
      // Row 0: sum of exp(logit - max); row 1: the id's logit, on the rank that has it.
      at::Tensor sums = at::stack({local_sum, at::where(inside, target, at::zeros_like(target))});
      shard.group.all_reduce(sums);
      values.narrow(0, begin, count).copy_(sums[1] - maximum - sums[0].log());
      if (!jacobian.defined()) return;
      // (sum) * (p - onehot) W, divided afterwards: the division then is over [c, hidden], not [c, vocab].
      logits.scatter_add_(1, local.unsqueeze(1), (sums[0] * inside).neg_().unsqueeze(1));
      at::Tensor jacobian_rows = jacobian.narrow(0, begin, count);
      at::div_out(jacobian_rows, weighted_rows(shard, logits, slope), sums[0].neg().unsqueeze(1));
    });
  }
  return attach_jacobian(shard, hidden, values, jacobian);
}

at::Tensor vocab_kl_to_reference(const VocabShard& shard, const at::Tensor& hidden,
                                 const at::Tensor& reference) {
  const auto wide = accumulation_type(shard.weight.scalar_type());
  const int64_t rows = hidden.size(0);
  at::Tensor values = at::empty({rows}, hidden.options().dtype(wide).requires_grad(false));
  at::Tensor jacobian;
  if (wants_gradient(hidden)) jacobian = at::empty({rows, hidden.size(1)}, values.options());
  {
    const at::NoGradGuard no_grad;
    for_each_chunk(shard, rows, [&](int64_t begin, int64_t count) {
      at::Tensor logits = local_logits(shard, hidden.narrow(0, begin, count));
      at::Tensor reference_logits = local_logits(shard, reference.narrow(0, begin, count));
      // With e = exp(logit - max) and Z its sum: KL = sum_j p_ref_j (l_ref_j - l_j) - log Z_ref + log Z,
      // l measured from its row's maximum.
      at::Tensor difference = reference_logits - logits;
      const at::Tensor slope = jacobian.defined() ? cap_slope(shard, logits) : at::Tensor();
      const auto [maximum, local_sum] = exponentiate_(logits, shard);
      const auto [reference_maximum, reference_sum] = exponentiate_(reference_logits, shard);
      difference.add_((maximum - reference_maximum).unsqueeze(1)).mul_(reference_logits);
      at::Tensor sums = at::stack({local_sum, reference_sum, difference.sum(1)});
      shard.group.all_reduce(sums);
      values.narrow(0, begin, count).copy_(sums[2] / sums[1] - sums[1].log() + sums[0].log());
      if (!jacobian.defined()) return;
      logits.div_(sums[0].unsqueeze(1)).sub_(reference_logits.div_(sums[1].unsqueeze(1)));
      jacobian.narrow(0, begin, count).copy_(weighted_rows(shard, logits, slope));
    });
  }
  return attach_jacobian(shard, hidden, values, jacobian);
}

at::Tensor vocab_argmax(const VocabShard& shard, const at::Tensor& hidden) {
  const at::NoGradGuard no_grad;
  at::Tensor best = at::empty({hidden.size(0)}, hidden.options().dtype(at::kLong).requires_grad(false));
  for_each_chunk(shard, hidden.size(0), [&](int64_t begin, int64_t count) {
    auto [value, index] = local_logits(shard, hidden.narrow(0, begin, count)).max(1);
    at::Tensor id = index + shard.begin;
    if (shard.group.size() > 1) {
      at::Tensor maximum = value.clone();
      shard.group.all_reduce(maximum, Reduction::max);
      id = at::where(value == maximum, id, at::full_like(id, std::numeric_limits<int64_t>::max()));
      shard.group.all_reduce(id, Reduction::min);
    }
    best.narrow(0, begin, count).copy_(id);
  });
  return best;
}

at::Tensor vocab_logits(const VocabShard& shard, const at::Tensor& hidden) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = local_logits(shard, hidden);
  if (shard.group.size() == 1) return logits;
  return shard.group.all_gather_rows(logits.t().contiguous()).t().contiguous();
}

}  // namespace efface
