#include "distributed/collectives.hpp"

#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/custom_function.h>

namespace efface {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

at::Tensor summed(const at::Tensor& tensor, const Communicator& group) {
  auto result = tensor.detach().clone(at::MemoryFormat::Contiguous);
  group.all_reduce(result);
  return result;
}

/// Carries a group from forward to backward.
struct HeldGroup : torch::CustomClassHolder {
  explicit HeldGroup(Communicator held) : group(std::move(held)) {}
  Communicator group;
};

/// Sums over the group forward, backward, or both.
struct GroupSum : Function<GroupSum> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const Communicator& group,
                            bool sum_forward, bool sum_backward) {
    if (sum_backward)
      context->saved_data["group"] = c10::IValue::make_capsule(c10::make_intrusive<HeldGroup>(group));
    return sum_forward ? summed(input, group) : input;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto gradient = gradients[0];
    const auto held = context->saved_data.find("group");
    if (held != context->saved_data.end()) {
      const auto capsule = held->second.toCapsule();
      gradient = summed(gradient, static_cast<HeldGroup*>(capsule.get())->group);
    }
    return {gradient, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor apply(const at::Tensor& input, const Communicator& group, bool sum_forward, bool sum_backward) {
  if (group.size() == 1) return input;
  if (!at::GradMode::is_enabled() || !input.requires_grad())
    return sum_forward ? summed(input, group) : input;
  return GroupSum::apply(input, group, sum_forward, sum_backward);
}

}  // namespace

at::Tensor copy_to_group(const at::Tensor& input, const Communicator& group) {
  return apply(input, group, false, true);
}

at::Tensor reduce_from_group(const at::Tensor& input, const Communicator& group) {
  return apply(input, group, true, false);
}

at::Tensor all_reduce_sum(const at::Tensor& input, const Communicator& group) {
  return apply(input, group, true, true);
}

}  // namespace efface
