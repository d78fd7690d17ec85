#include "distributed/device.hpp"

#include "distributed/error.hpp"

#ifdef EFFACE_WITH_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace efface {
namespace {

int gpu_count() {
#ifdef EFFACE_WITH_CUDA
  return c10::cuda::device_count();
#else
  return 0;
#endif
}

}  // namespace

GroupDevice choose_device(const Communicator& world, at::Device asked) {
  if (!asked.is_cuda()) return {asked, false};
  const int gpus = gpu_count();
  const NodePlace place = place_on_node(world);
  if (world.all_reduce(static_cast<int64_t>(gpus), Reduction::min) == 0)
    throw Error(ErrorClass::communication, "a rank has no usable NVIDIA GPU",
                "run on the CPU, or check the driver with nvidia-smi and that this is a CUDA build");
  const bool enough = world.all_reduce(static_cast<int64_t>(gpus >= place.size), Reduction::min) != 0;
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(place.rank % gpus));
#ifdef EFFACE_WITH_CUDA
  c10::cuda::set_device(device.index());
#endif
  return {device, enough && world.size() > 1};
}

}  // namespace efface
