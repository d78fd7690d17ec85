#include "core/unlearn/adamw.hpp"

#include <cmath>

namespace efface {

at::Tensor Adam::direction(const at::Tensor& gradient, int64_t step) {
  const auto t = static_cast<double>(step + 1);
  first_.mul_(options_.beta1).add_(gradient, 1 - options_.beta1);
  second_.mul_(options_.beta2).addcmul_(gradient, gradient, 1 - options_.beta2);
  auto denominator = second_.sqrt();
  denominator.div_(std::sqrt(1 - std::pow(options_.beta2, t))).add_(options_.epsilon);
  return at::div(first_, denominator).div_(1 - std::pow(options_.beta1, t));
}

}  // namespace efface
