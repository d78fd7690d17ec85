#include "distributed/device.hpp"

#include "distributed/error.hpp"

#ifdef EFFACE_WITH_CUDA
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <cstring>
#endif

namespace efface {
namespace {

#ifdef EFFACE_WITH_CUDA
int gpu_count() { return c10::cuda::device_count(); }

void use_gpu(at::Device device) { c10::cuda::set_device(device.index()); }

/// [1, 16] bytes that no other GPU has, on any node.
at::Tensor gpu_identity(at::Device device) {
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, device.index()) != cudaSuccess)
    throw Error(ErrorClass::communication, "the GPU " + device.str() + " does not answer",
                "check it with nvidia-smi");
  auto bytes = at::empty({1, static_cast<int64_t>(sizeof(properties.uuid))}, at::kByte);
  std::memcpy(bytes.data_ptr(), properties.uuid.bytes, sizeof(properties.uuid));
  return bytes;
}
#else
int gpu_count() { return 0; }
void use_gpu(at::Device) {}
at::Tensor gpu_identity(at::Device) { return at::zeros({1, 1}, at::kByte); }
#endif

/// Launchers may show each rank only a GPU of its own as cuda:0, or the same one to all: the hardware tells.
bool all_differ(const at::Tensor& rows) {
  const auto distinct = std::get<0>(at::unique_dim(rows, 0));
  return distinct.size(0) == rows.size(0);
}

}  // namespace

GroupDevice choose_device(const Communicator& world, at::Device asked) {
  if (!asked.is_cuda()) return {asked, false};
  const int gpus = gpu_count();
  const NodePlace place = place_on_node(world);
  if (world.all_reduce(static_cast<int64_t>(gpus), Reduction::min) == 0)
    throw Error(ErrorClass::communication, "a rank has no usable NVIDIA GPU",
                "run on the CPU, or check the driver with nvidia-smi and that this is a CUDA build");
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(place.rank % gpus));
  use_gpu(device);
  return {device, world.size() > 1 && all_differ(world.all_gather(gpu_identity(device)))};
}

}  // namespace efface
