// Collectives over MPI on tensors in host memory. Tensors on a GPU are staged through pinned host memory, so
// that several ranks can share one GPU.
#include <mpi.h>

#include <algorithm>

#include "distributed/backends/backends.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

// MPI counts are 32-bit integers; a smaller piece also bounds the fp32 copies of bf16 and fp16 sums.
constexpr int64_t kPieceBytes = int64_t{64} << 20;

void check(int code, const char* operation) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(ErrorClass::communication,
              std::string("MPI ") + operation + " failed: " + std::string(text, length));
}

MPI_Datatype mpi_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kLong:
      return MPI_INT64_T;
    case at::kInt:
      return MPI_INT32_T;
    case at::kShort:
      return MPI_INT16_T;
    case at::kChar:
      return MPI_INT8_T;
    case at::kByte:
      return MPI_UINT8_T;
    case at::kBool:
      return MPI_CXX_BOOL;
    default:
      throw Error(ErrorClass::communication, std::string("MPI cannot reduce ") + at::toString(type));
  }
}

MPI_Op mpi_op(Reduction op, at::ScalarType type) {
  if (type == at::kBool) return op == Reduction::min ? MPI_LAND : MPI_LOR;
  switch (op) {
    case Reduction::sum:
      return MPI_SUM;
    case Reduction::max:
      return MPI_MAX;
    default:
      return MPI_MIN;
  }
}

/// The type in which sums of `type` are accumulated.
at::ScalarType accumulation_type(at::ScalarType type) {
  return type == at::kBFloat16 || type == at::kHalf ? at::kFloat : type;
}

at::Tensor on_host(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  auto host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
  host.copy_(tensor);
  return host;
}

class MpiBackend : public CommunicatorBackend, public HasMpiHandle {
 public:
  /// @param owned freed with this object
  MpiBackend(MPI_Comm comm, bool owned) : comm_(comm), owned_(owned) {
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "rank");
    check(MPI_Comm_size(comm_, &size_), "size");
  }
  ~MpiBackend() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (owned_ && !finalized) MPI_Comm_free(&comm_);
  }
  MpiBackend(const MpiBackend&) = delete;
  MpiBackend& operator=(const MpiBackend&) = delete;

  const char* name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int fortran_handle() const override { return static_cast<int>(MPI_Comm_c2f(comm_)); }

  void all_reduce(at::Tensor& tensor, Reduction op) override {
    auto flat = on_host(tensor).view(-1);
    const auto type = accumulation_type(flat.scalar_type());
    const auto piece_length = std::max<int64_t>(1, kPieceBytes / static_cast<int64_t>(at::elementSize(type)));
    for (int64_t begin = 0; begin < flat.numel(); begin += piece_length) {
      auto piece = flat.narrow(0, begin, std::min(piece_length, flat.numel() - begin));
      auto sums = piece.to(type);
      check(MPI_Allreduce(MPI_IN_PLACE, sums.data_ptr(), static_cast<int>(sums.numel()), mpi_type(type),
                          mpi_op(op, type), comm_),
            "all_reduce");
      if (!sums.is_same(piece)) piece.copy_(sums);
    }
    if (!tensor.is_cpu()) tensor.copy_(flat.view(tensor.sizes()));
  }

  void reduce_scatter(const at::Tensor& input, at::Tensor& output) override {
    const auto blocks = on_host(input).view({size_, -1});
    const auto type = accumulation_type(input.scalar_type());
    auto result = output.is_cpu() ? output.view(-1) : at::empty({output.numel()}, blocks.options());
    const int64_t length = result.numel();
    const auto piece_length =
        std::max<int64_t>(1, kPieceBytes / (size_ * static_cast<int64_t>(at::elementSize(type))));
    for (int64_t begin = 0; begin < length; begin += piece_length) {
      const int64_t count = std::min(piece_length, length - begin);
      const auto piece = blocks.narrow(1, begin, count).to(type).contiguous();
      auto sums = at::empty({count}, piece.options());
      check(MPI_Reduce_scatter_block(piece.data_ptr(), sums.data_ptr(), static_cast<int>(count),
                                     mpi_type(type), mpi_op(Reduction::sum, type), comm_),
            "reduce_scatter");
      result.narrow(0, begin, count).copy_(sums);
    }
    if (!output.is_cpu()) output.copy_(result.view(output.sizes()));
  }

  void all_gather(const at::Tensor& input, at::Tensor& output) override {
    const auto mine = on_host(input).view(-1);
    auto host = output.is_cpu() ? output : at::empty(output.sizes(), mine.options().pinned_memory(true));
    auto blocks = host.view({size_, -1});
    const auto item = static_cast<int64_t>(mine.element_size());
    const auto piece_length = std::max<int64_t>(1, kPieceBytes / (size_ * item));
    for (int64_t begin = 0; begin < mine.numel(); begin += piece_length) {
      const int64_t count = std::min(piece_length, mine.numel() - begin);
      const auto piece = mine.narrow(0, begin, count);
      auto target = blocks.narrow(1, begin, count);
      auto gathered = target.is_contiguous() ? target : at::empty(target.sizes(), mine.options());
      const auto bytes = static_cast<int>(count * item);
      check(MPI_Allgather(piece.data_ptr(), bytes, MPI_BYTE, gathered.data_ptr(), bytes, MPI_BYTE, comm_),
            "all_gather");
      if (!gathered.is_same(target)) target.copy_(gathered);
    }
    if (!output.is_cpu()) output.copy_(host);
  }

  void broadcast(at::Tensor& tensor, int root) override {
    auto host = on_host(tensor);
    for_pieces(host, [&](char* data, int bytes) {
      check(MPI_Bcast(data, bytes, MPI_BYTE, root, comm_), "broadcast");
    });
    if (!tensor.is_cpu() && rank_ != root) tensor.copy_(host);
  }

  void send(const at::Tensor& tensor, int destination, int tag) override {
    for_pieces(on_host(tensor), [&](char* data, int bytes) {
      check(MPI_Send(data, bytes, MPI_BYTE, destination, tag, comm_), "send");
    });
  }

  void receive(at::Tensor& tensor, int source, int tag) override {
    auto host = on_host(tensor);
    for_pieces(host, [&](char* data, int bytes) {
      check(MPI_Recv(data, bytes, MPI_BYTE, source, tag, comm_, MPI_STATUS_IGNORE), "receive");
    });
    if (!tensor.is_cpu()) tensor.copy_(host);
  }

  void barrier() override { check(MPI_Barrier(comm_), "barrier"); }

  std::shared_ptr<CommunicatorBackend> split(int color, int key) override {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color, key, &part), "split");
    return std::make_shared<MpiBackend>(part, true);
  }

 private:
  template <typename Transfer>
  static void for_pieces(const at::Tensor& host, const Transfer& transfer) {
    auto* data = static_cast<char*>(host.data_ptr());
    const auto bytes = static_cast<int64_t>(host.nbytes());
    for (int64_t begin = 0; begin < bytes; begin += kPieceBytes)
      transfer(data + begin, static_cast<int>(std::min(kPieceBytes, bytes - begin)));
  }

  MPI_Comm comm_;
  bool owned_;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace

std::shared_ptr<CommunicatorBackend> make_mpi_world_backend() {
  return std::make_shared<MpiBackend>(MPI_COMM_WORLD, false);
}

}  // namespace efface
