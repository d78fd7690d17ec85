// One process group. A thin value over a backend: `self` (one rank), `mpi` (CPU tensors; CUDA tensors are
// staged through host memory), `nccl` (CUDA tensors). Copies share the group and its counters.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace efface {

enum class Reduction { sum, max, min };

/// What one kind of collective has moved so far on this rank.
struct TrafficCounter {
  int64_t calls = 0;
  int64_t bytes = 0;  // size of the tensor given by this rank
  double seconds = 0;
};

/// What a backend implements (backends/*.cpp). Tensors are contiguous; every rank of the group calls the same
/// operation in the same order with the same dtype and size, or the behaviour is the backend's (MPI: abort).
/// bf16 and fp16 sums are accumulated in fp32. Messages over 2 GiB are split.
class CommunicatorBackend {
 public:
  virtual ~CommunicatorBackend() = default;
  virtual const char* name() const = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void all_reduce(at::Tensor& tensor, Reduction op) = 0;
  virtual void reduce_scatter(const at::Tensor& input, at::Tensor& output) = 0;
  virtual void all_gather(const at::Tensor& input, at::Tensor& output) = 0;
  virtual void broadcast(at::Tensor& tensor, int root) = 0;
  virtual void send(const at::Tensor& tensor, int destination, int tag) = 0;
  virtual void receive(at::Tensor& tensor, int source, int tag) = 0;
  virtual void barrier() = 0;
  virtual std::shared_ptr<CommunicatorBackend> split(int color, int key) = 0;
};

class Communicator {
 public:
  Communicator();  ///< the group of this rank alone
  explicit Communicator(std::shared_ptr<CommunicatorBackend> backend);

  int rank() const { return backend_->rank(); }
  int size() const { return backend_->size(); }
  const char* backend_name() const { return backend_->name(); }

  /// In place; `tensor` may be non-contiguous (it is copied then). Any dtype but complex.
  void all_reduce(at::Tensor tensor, Reduction op = Reduction::sum) const;
  double all_reduce(double value, Reduction op = Reduction::sum) const;
  int64_t all_reduce(int64_t value, Reduction op = Reduction::sum) const;
  /// `input` [size * n, ...] summed over ranks; rank r gets rows [r n, (r+1) n): [n, ...].
  at::Tensor reduce_scatter(const at::Tensor& input) const;
  /// `input` [n, ...], the same n on every rank -> [size * n, ...] in rank order.
  at::Tensor all_gather(const at::Tensor& input) const;
  /// Rows may differ in number by rank (known to none beforehand) -> all rows, in rank order.
  at::Tensor all_gather_rows(const at::Tensor& input) const;
  void broadcast(at::Tensor tensor, int root) const;
  std::string broadcast(const std::string& text, int root) const;
  void send(const at::Tensor& tensor, int destination, int tag = 0) const;
  void receive(at::Tensor tensor, int source, int tag = 0) const;
  void barrier() const;
  /// Ranks with the same colour form a group, ordered by key then by old rank.
  Communicator split(int color, int key) const;

  /// "all_reduce", "all_gather", ... -> bytes, calls, seconds on this rank since the group was made.
  const std::map<std::string, TrafficCounter>& traffic() const { return *traffic_; }
  /// The backend itself, for solvers that need MPI's own handle; null cast when it is another backend.
  const std::shared_ptr<CommunicatorBackend>& backend() const { return backend_; }

 private:
  std::shared_ptr<CommunicatorBackend> backend_;
  std::shared_ptr<std::map<std::string, TrafficCounter>> traffic_;
};

/// MPI for the life of the object (MPI_THREAD_SERIALIZED). A program that was not started by mpirun is a
/// world of one. `abort` ends every rank of the job with `code`.
class MpiSession {
 public:
  MpiSession(int* argc, char*** argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  Communicator world() const;
  [[noreturn]] static void abort(int code);
};

/// Where this rank sits among the ranks of a group that share its node. Collective.
struct NodePlace {
  int rank = 0;  ///< among them, in the group's order
  int size = 1;
  int node = 0;  ///< the group's rank of the first of them: the same number for all on a node
};
NodePlace place_on_node(const Communicator& communicator);

/// MPI_Comm of a group as Fortran handle (for BLACS), or -1 where the group has none (`self`).
int mpi_fortran_handle(const Communicator& communicator);

/// A group on NCCL with the members of `mpi_group`, for tensors on `cuda:device`. Throws
/// Error(communication) in a build without NCCL, and where no driver is found.
Communicator make_nccl_communicator(const Communicator& mpi_group, int device);

}  // namespace efface
