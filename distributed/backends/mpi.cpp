// Collectives over MPI on tensors in host memory. Tensors on a GPU are staged through pinned host memory, so
// that several ranks can share one GPU.
#include <mpi.h>

#include <algorithm>

#include "distributed/backends/backends.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

// MPI counts are 32-bit integers; a smaller piece also bounds the buffers of sums in half precision.
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

/// MPI knows neither type: sums of them are made here, in fp32.
bool is_half(at::ScalarType type) { return type == at::kBFloat16 || type == at::kHalf; }

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
    const auto length = piece_length(flat);
    for (int64_t begin = 0; begin < flat.numel(); begin += length) {
      auto piece = flat.narrow(0, begin, std::min(length, flat.numel() - begin));
      if (!is_half(flat.scalar_type())) {
        reduce_piece(piece, op);
      } else if (op == Reduction::sum) {
        sum_half_piece(piece);
      } else {
        auto wide = piece.to(at::kFloat);
        reduce_piece(wide, op);
        piece.copy_(wide);
      }
    }
    if (!tensor.is_cpu()) tensor.copy_(flat.view(tensor.sizes()));
  }

  void reduce_scatter(const at::Tensor& input, at::Tensor& output) override {
    const auto blocks = on_host(input).view({size_, -1});
    auto result = output.is_cpu() ? output.view(-1) : at::empty({output.numel()}, blocks.options());
    const int64_t length = std::max<int64_t>(1, piece_length(blocks) / size_);
    for (int64_t begin = 0; begin < result.numel(); begin += length) {
      const int64_t count = std::min(length, result.numel() - begin);
      const auto piece = blocks.narrow(1, begin, count).contiguous();
      auto target = result.narrow(0, begin, count);
      if (is_half(piece.scalar_type()))
        target.copy_(sum_half_blocks(piece));
      else
        check(MPI_Reduce_scatter_block(piece.data_ptr(), target.data_ptr(), static_cast<int>(count),
                                       mpi_type(piece.scalar_type()),
                                       mpi_op(Reduction::sum, piece.scalar_type()), comm_),
              "reduce_scatter");
    }
    if (!output.is_cpu()) output.copy_(result.view(output.sizes()));
  }

  void all_gather(const at::Tensor& input, at::Tensor& output) override {
    const auto mine = on_host(input).view(-1);
    auto host = output.is_cpu() ? output : at::empty(output.sizes(), mine.options().pinned_memory(true));
    auto blocks = host.view({size_, -1});
    const int64_t length = std::max<int64_t>(1, piece_length(mine) / size_);
    for (int64_t begin = 0; begin < mine.numel(); begin += length) {
      const int64_t count = std::min(length, mine.numel() - begin);
      const auto piece = mine.narrow(0, begin, count);
      auto target = blocks.narrow(1, begin, count);
      auto gathered = target.is_contiguous() ? target : at::empty(target.sizes(), mine.options());
      gather_piece(piece, gathered);
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
  static int64_t piece_length(const at::Tensor& tensor) {
    return kPieceBytes / static_cast<int64_t>(tensor.element_size());
  }

  void reduce_piece(at::Tensor& piece, Reduction op) {
    const auto type = piece.scalar_type();
    check(MPI_Allreduce(MPI_IN_PLACE, piece.data_ptr(), static_cast<int>(piece.numel()), mpi_type(type),
                        mpi_op(op, type), comm_),
          "all_reduce");
  }

  void gather_piece(const at::Tensor& mine, at::Tensor& all) {
    const auto bytes = static_cast<int>(mine.nbytes());
    check(MPI_Allgather(mine.data_ptr(), bytes, MPI_BYTE, all.data_ptr(), bytes, MPI_BYTE, comm_),
          "all_gather");
  }

  /// `blocks` [size, count], block r for rank r -> [count], their sum, rounded once.
  at::Tensor sum_half_blocks(const at::Tensor& blocks) {
    auto received = at::empty_like(blocks);
    const auto bytes = static_cast<int>(blocks.nbytes()) / size_;
    check(MPI_Alltoall(blocks.data_ptr(), bytes, MPI_BYTE, received.data_ptr(), bytes, MPI_BYTE, comm_),
          "all_to_all");
    return received.sum(0, /*keepdim=*/false, at::kFloat).to(blocks.scalar_type());
  }

  /// Each rank sums its block of the piece, so that every rank ends with the same bits.
  void sum_half_piece(at::Tensor& piece) {
    const int64_t count = (piece.numel() + size_ - 1) / size_;
    auto blocks = at::zeros({size_, count}, piece.options());
    auto padded = blocks.view(-1).narrow(0, 0, piece.numel());
    padded.copy_(piece);
    gather_piece(sum_half_blocks(blocks), blocks);
    piece.copy_(padded);
  }

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
