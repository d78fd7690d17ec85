// Collectives over NCCL on the current CUDA stream: they are ordered with the kernels around them and the
// host does not wait. Tensors in host memory, and types NCCL cannot reduce, go over the MPI group of the same
// members.
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>

#include "distributed/backends/backends.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

[[noreturn]] void fail(ncclResult_t code, const char* operation) {
  throw Error(ErrorClass::communication,
              std::string("NCCL ") + operation + " failed: " + ncclGetErrorString(code) + " (" +
                  ncclGetLastError(nullptr) + ")",
              "set NCCL_DEBUG=INFO to see why");
}

/// A communicator made with blocking = 0: a call may return before it has been issued, and is then polled
/// for.
class NcclHandle {
 public:
  NcclHandle(const ncclUniqueId& id, int rank, int size) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const auto code = ncclCommInitRankConfig(&comm_, size, id, rank, &config);
    try {
      await(code, "initialisation");
    } catch (...) {
      if (comm_ != nullptr) ncclCommAbort(comm_);
      throw;
    }
  }
  ~NcclHandle() {
    // Finalize waits for the other ranks, which after an error may never come.
    if (std::uncaught_exceptions() > 0 || ncclCommFinalize(comm_) > ncclInProgress ||
        settled() != ncclSuccess)
      ncclCommAbort(comm_);
    else
      ncclCommDestroy(comm_);
  }
  NcclHandle(const NcclHandle&) = delete;
  NcclHandle& operator=(const NcclHandle&) = delete;

  ncclComm_t get() const { return comm_; }

  void await(ncclResult_t code, const char* operation) const {
    if (code == ncclInProgress) code = settled();
    if (code != ncclSuccess) fail(code, operation);
  }

 private:
  ncclResult_t settled() const {
    ncclResult_t state = ncclInProgress;
    for (int polls = 0;; ++polls) {
      const auto code = ncclCommGetAsyncError(comm_, &state);
      if (code != ncclSuccess) return code;
      if (state != ncclInProgress) return state;
      if (polls > 1000) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  ncclComm_t comm_ = nullptr;
};

std::optional<ncclDataType_t> nccl_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kHalf:
      return ncclFloat16;
    case at::kLong:
      return ncclInt64;
    case at::kInt:
      return ncclInt32;
    case at::kChar:
      return ncclInt8;
    case at::kByte:
      return ncclUint8;
    default:
      return std::nullopt;
  }
}

ncclRedOp_t nccl_op(Reduction op) {
  switch (op) {
    case Reduction::sum:
      return ncclSum;
    case Reduction::max:
      return ncclMax;
    default:
      return ncclMin;
  }
}

class NcclBackend : public CommunicatorBackend, public HasMpiHandle {
 public:
  /// @param host the MPI group with the same members
  NcclBackend(Communicator host, const ncclUniqueId& id, int device)
      : host_(std::move(host)), device_(device), nccl_(id, host_.rank(), host_.size()) {}

  const char* name() const override { return "nccl"; }
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int fortran_handle() const override { return mpi_fortran_handle(host_); }

  void all_reduce(at::Tensor& tensor, Reduction op) override {
    if (!reducible(tensor)) return host_.backend()->all_reduce(tensor, op);
    auto terms = op == Reduction::sum ? widened(tensor) : tensor;
    nccl_.await(ncclAllReduce(terms.data_ptr(), terms.data_ptr(), count(terms),
                              *nccl_type(terms.scalar_type()), nccl_op(op), nccl_.get(), stream()),
                "all_reduce");
    if (!terms.is_same(tensor)) tensor.copy_(terms);
  }

  void reduce_scatter(const at::Tensor& input, at::Tensor& output) override {
    if (!reducible(input)) return host_.backend()->reduce_scatter(input, output);
    const auto terms = widened(input);
    auto sums = terms.is_same(input) ? output : at::empty(output.sizes(), terms.options());
    nccl_.await(ncclReduceScatter(terms.data_ptr(), sums.data_ptr(), count(sums),
                                  *nccl_type(terms.scalar_type()), ncclSum, nccl_.get(), stream()),
                "reduce_scatter");
    if (!sums.is_same(output)) output.copy_(sums);
  }

  void all_gather(const at::Tensor& input, at::Tensor& output) override {
    if (!input.is_cuda()) return host_.backend()->all_gather(input, output);
    nccl_.await(
        ncclAllGather(input.data_ptr(), output.data_ptr(), input.nbytes(), ncclUint8, nccl_.get(), stream()),
        "all_gather");
  }

  void broadcast(at::Tensor& tensor, int root) override {
    if (!tensor.is_cuda()) return host_.backend()->broadcast(tensor, root);
    nccl_.await(ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.nbytes(), ncclUint8, root,
                              nccl_.get(), stream()),
                "broadcast");
  }

  /// NCCL has no tags: messages between two ranks arrive in the order they were sent.
  void send(const at::Tensor& tensor, int destination, int tag) override {
    if (!tensor.is_cuda()) return host_.backend()->send(tensor, destination, tag);
    nccl_.await(ncclSend(tensor.data_ptr(), tensor.nbytes(), ncclUint8, destination, nccl_.get(), stream()),
                "send");
  }

  void receive(at::Tensor& tensor, int source, int tag) override {
    if (!tensor.is_cuda()) return host_.backend()->receive(tensor, source, tag);
    nccl_.await(ncclRecv(tensor.data_ptr(), tensor.nbytes(), ncclUint8, source, nccl_.get(), stream()),
                "receive");
  }

  void barrier() override { host_.barrier(); }

  std::shared_ptr<CommunicatorBackend> split(int color, int key) override {
    const auto part = host_.split(color, key);
    return part.size() == 1 ? make_self_backend() : make_nccl_communicator(part, device_).backend();
  }

 private:
  static bool reducible(const at::Tensor& tensor) {
    return tensor.is_cuda() && nccl_type(tensor.scalar_type());
  }
  static size_t count(const at::Tensor& tensor) { return static_cast<size_t>(tensor.numel()); }

  /// NCCL rounds half-precision sums at every rank; between two ranks that is the one rounding there is
  /// anyway.
  at::Tensor widened(const at::Tensor& tensor) const {
    const bool half = tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
    return half && size() > 2 ? tensor.to(at::kFloat) : tensor;
  }
  cudaStream_t stream() const {
    return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device_)).stream();
  }

  Communicator host_;
  int device_;
  NcclHandle nccl_;
};

/// Made by rank 0; an empty text everywhere when that failed.
std::string shared_unique_id(const Communicator& group) {
  std::string text;
  if (group.rank() == 0) {
    ncclUniqueId id;
    if (ncclGetUniqueId(&id) == ncclSuccess) text.assign(id.internal, sizeof(id.internal));
  }
  return group.broadcast(text, 0);
}

}  // namespace

Communicator make_nccl_communicator(const Communicator& mpi_group, int device) {
  const bool usable = device >= 0 && device < c10::cuda::device_count();
  if (mpi_group.all_reduce(static_cast<int64_t>(usable), Reduction::min) == 0)
    throw Error(ErrorClass::communication,
                "NCCL needs a GPU on every rank; rank " + std::to_string(mpi_group.rank()) +
                    (usable ? " has one, another has none" : " has no cuda:" + std::to_string(device)),
                "check the driver with nvidia-smi, or run on the CPU");
  const auto text = shared_unique_id(mpi_group);
  ncclUniqueId id;
  if (text.size() != sizeof(id.internal)) fail(ncclSystemError, "unique id");
  std::memcpy(id.internal, text.data(), sizeof(id.internal));
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  return Communicator(std::make_shared<NcclBackend>(mpi_group, id, device));
}

}  // namespace efface
