#include "core/model/product.hpp"

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>

namespace efface {
namespace {

/// ATen's oneDNN linear layer, x W^T for W [n, k] of any strides.
using OneDnnLinear = at::Tensor(const at::Tensor& x, const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias, std::string_view attribute,
                                c10::List<std::optional<at::Scalar>> scalars,
                                std::optional<std::string_view> algorithm);

/// Nothing where this build of ATen has no oneDNN.
const std::optional<c10::TypedOperatorHandle<OneDnnLinear>>& onednn_linear() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<OneDnnLinear>> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !at::hasMKLDNN()) return std::nullopt;
    return schema->typed<OneDnnLinear>();
  }();
  return handle;
}

bool suits_onednn(const at::Tensor& a, const at::Tensor& b) {
  return a.is_cpu() && a.scalar_type() == at::kFloat && b.scalar_type() == at::kFloat && a.numel() > 0 &&
         b.numel() > 0 && at::globalContext().userEnabledMkldnn() && onednn_linear().has_value();
}

}  // namespace

at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) {
  const at::NoGradGuard no_grad;
  if (!suits_onednn(a, b)) return at::mm(a, b);
  return onednn_linear()->call(a, b.t(), std::nullopt, "none", c10::List<std::optional<at::Scalar>>(),
                               std::nullopt);
}

}  // namespace efface
