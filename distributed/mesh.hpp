// world = tensor x data. Tensor ranks are neighbours: world rank = data_rank * tensor_size + tensor_rank, so
// a tensor group lies inside a node whenever its size divides the node's ranks.
#pragma once

#include <ATen/ATen.h>

#include "distributed/communicator.hpp"

namespace efface {

struct Mesh {
  Communicator world;
  Communicator tensor;  ///< the ranks that hold the other shards of my tensors
  Communicator data;    ///< the ranks that hold the same shards and other rows of the batch
  at::Device device = at::kCPU;

  int tensor_rank() const { return tensor.rank(); }
  int tensor_size() const { return tensor.size(); }
  int data_rank() const { return data.rank(); }
  int data_size() const { return data.size(); }
  bool is_root() const { return world.rank() == 0; }
};

/// tensor = 0 or data = 0: chosen so that tensor * data = world size (tensor defaults to 1).
/// Throws Error(usage) naming both sizes when tensor * data != world size.
/// On CUDA device = local rank on the node; groups are NCCL's where ranks have a GPU each, else MPI's.
Mesh make_mesh(const Communicator& world, int tensor, int data, at::Device device = at::kCPU);

/// A mesh of this rank alone, for tests and for commands on one process.
Mesh single_mesh(at::Device device = at::kCPU);

/// [begin, end) of part `index` when `n` things are dealt to `parts` as evenly as possible, in order.
std::pair<int64_t, int64_t> even_range(int64_t n, int index, int parts);

}  // namespace efface
