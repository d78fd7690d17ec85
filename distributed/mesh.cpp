#include "distributed/mesh.hpp"

#include <algorithm>
#include <string>

#include "distributed/device.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

struct Shape {
  int tensor = 1;
  int data = 1;
};

Shape shape_of(int tensor, int data, int world) {
  const auto refuse = [&](const std::string& asked) {
    return Error(ErrorClass::usage, asked + " does not make " + std::to_string(world) + " ranks",
                 "start as many ranks as tensor x data, or leave one of the two out");
  };
  if (tensor < 0 || data < 0)
    throw refuse("tensor " + std::to_string(tensor) + " x data " + std::to_string(data));
  if (tensor == 0 && data == 0) return {1, world};
  if (tensor == 0) tensor = std::max(1, world / data);
  if (data == 0) data = std::max(1, world / tensor);
  if (int64_t{tensor} * data != world)
    throw refuse("tensor " + std::to_string(tensor) + " x data " + std::to_string(data));
  return {tensor, data};
}

}  // namespace

Mesh make_mesh(const Communicator& world, int tensor, int data, at::Device device) {
  const Shape shape = shape_of(tensor, data, world.size());
  const GroupDevice place = choose_device(world, device);
  Mesh mesh;
  mesh.device = place.device;
  mesh.world = place.own_gpu ? make_nccl_communicator(world, place.device.index()) : world;
  mesh.tensor = mesh.world.split(world.rank() / shape.tensor, world.rank());
  mesh.data = mesh.world.split(world.rank() % shape.tensor, world.rank());
  return mesh;
}

Mesh single_mesh(at::Device device) {
  Mesh mesh;
  mesh.device = device;
  return mesh;
}

std::pair<int64_t, int64_t> even_range(int64_t n, int index, int parts) {
  const int64_t share = n / parts, longer = n % parts;
  const int64_t begin = index * share + std::min<int64_t>(index, longer);
  return {begin, begin + share + (index < longer ? 1 : 0)};
}

}  // namespace efface
