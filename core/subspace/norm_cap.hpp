// The norm that long tokens are scaled down to: a multiple of the median over the first counted tokens in
// global order, the same on every mesh.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "distributed/communicator.hpp"

namespace efface {

/// The rows of the passes sampled so far, on all data ranks. Global order: pass by pass; inside a pass rows
/// are dealt round-robin, so row j of data rank d comes before row j of rank d + 1 and before row j + 1 of
/// rank 0.
class TokenOrder {
 public:
  /// `counted` [rows]: counted tokens of each row of this rank's batch. Collective over `data`.
  void add_pass(const std::vector<int64_t>& counted, const Communicator& data);
  /// Over all ranks.
  int64_t tokens() const { return tokens_; }
  /// `local` [this rank's counted tokens of all passes, in order] -> the first `limit` of all ranks', in
  /// global order. Collective over `data`.
  std::vector<double> first(const at::Tensor& local, int64_t limit, const Communicator& data) const;

 private:
  std::vector<std::vector<std::vector<int64_t>>> passes_;  // [pass][data rank][row]
  int64_t tokens_ = 0;
};

/// The lower median; 0 of nothing.
double median(std::vector<double> values);

}  // namespace efface
