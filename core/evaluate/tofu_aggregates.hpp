// From TOFU's per-question scores to the figures that are published.
#pragma once

#include <vector>

#include "core/evaluate/tofu.hpp"

namespace efface {

/// 0 of none.
template <typename Value>
double mean_of(const std::vector<TofuScore>& scores, Value&& value) {
  double sum = 0;
  for (const TofuScore& score : scores) sum += value(score);
  return scores.empty() ? 0 : sum / static_cast<double>(scores.size());
}

/// Retain: plain probability; real authors and world facts: the normalised one.
double tofu_model_utility(const TofuReport& report);

}  // namespace efface
