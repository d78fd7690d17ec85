// The differentiable collectives tensor parallelism needs (Megatron-LM, Shoeybi et al. 2019, f and g).
// All leave a group of one untouched. Gradients flow through autograd; no other rank's graph is needed.
#pragma once

#include <ATen/ATen.h>

#include "distributed/communicator.hpp"

namespace efface {

/// Forward identity, backward all-reduce: the input of a column-parallel linear.
at::Tensor copy_to_group(const at::Tensor& input, const Communicator& group);

/// Forward all-reduce, backward identity: the output of a row-parallel linear, whose consumer is replicated.
at::Tensor reduce_from_group(const at::Tensor& input, const Communicator& group);

/// Forward all-reduce, backward all-reduce: a sum over shards that each rank then uses in a *different* way,
/// as in A P of a row-parallel module, A_r - (sum_s A_s U_s) U_r^T.
at::Tensor all_reduce_sum(const at::Tensor& input, const Communicator& group);

}  // namespace efface
