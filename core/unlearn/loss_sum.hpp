// A method's loss as it is written down: weighted parts, each a sum over its units divided by the global
// count.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "core/unlearn/method.hpp"

namespace efface {

class LossSum {
 public:
  /// Adds weight * (sum of `units`) / global_units. `units` holds this rank's values, one a row, label or
  /// token; an undefined or empty tensor is a rank (or micro-batch) that has none of them.
  void add(const std::string& part, double weight, const at::Tensor& units, int64_t global_units) {
    if (!units.defined() || units.numel() == 0) return;
    const auto share = units.sum() / static_cast<double>(global_units);
    const auto weighted = share * weight;
    loss_.total = loss_.total.defined() ? loss_.total + weighted : weighted;
    loss_.parts[part] += share.item<double>();
  }
  /// A number to report beside the loss, of which nothing is optimised.
  void report(const std::string& part, const at::Tensor& units, int64_t global_units) {
    if (!units.defined() || units.numel() == 0) return;
    loss_.parts[part] += units.detach().sum().item<double>() / static_cast<double>(global_units);
  }
  /// `total` is undefined when nothing was added.
  LossParts take() { return std::move(loss_); }

 private:
  LossParts loss_;
};

}  // namespace efface
