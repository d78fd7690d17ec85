// Which GPU a rank works on.
#pragma once

#include <ATen/ATen.h>

#include "distributed/communicator.hpp"

namespace efface {

struct GroupDevice {
  at::Device device = at::kCPU;
  bool own_gpu = false;  ///< every rank of the group has a GPU to itself, so that NCCL can serve it
};

/// The CPU as it is; for CUDA the GPU numbered as this rank on its node, shared in turn where there are fewer
/// GPUs than ranks. Collective. Throws Error(communication) on every rank when any has no usable GPU.
GroupDevice choose_device(const Communicator& world, at::Device asked);

}  // namespace efface
