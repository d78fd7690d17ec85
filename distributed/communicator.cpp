#include "distributed/communicator.hpp"

#include <chrono>
#include <cstring>

#include "distributed/activity.hpp"
#include "distributed/backends/backends.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

using Clock = std::chrono::steady_clock;

/// Counts one call from its construction to its destruction.
class Counted {
 public:
  Counted(std::map<std::string, TrafficCounter>& traffic, const char* operation, const at::Tensor& tensor)
      : running_(operation), counter_(traffic[operation]), begin_(Clock::now()) {
    ++counter_.calls;
    counter_.bytes += static_cast<int64_t>(tensor.numel() * tensor.element_size());
  }
  ~Counted() { counter_.seconds += std::chrono::duration<double>(Clock::now() - begin_).count(); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  InCollective running_;
  TrafficCounter& counter_;
  Clock::time_point begin_;
};

/// Runs `operation` on a contiguous tensor and copies the result back where that had to be a copy.
template <typename Operation>
void in_place(const at::Tensor& tensor, const Operation& operation) {
  auto target = tensor.detach();
  auto dense = target.contiguous();
  operation(dense);
  if (!dense.is_same(target)) target.copy_(dense);
}

std::vector<int64_t> with_rows(const at::Tensor& tensor, int64_t rows) {
  auto sizes = tensor.sizes().vec();
  sizes[0] = rows;
  return sizes;
}

void require_rows(const at::Tensor& tensor, const char* operation) {
  if (tensor.dim() == 0)
    throw Error(ErrorClass::communication,
                std::string(operation) + " needs a tensor with at least one dimension");
}

}  // namespace

Communicator::Communicator() : Communicator(make_self_backend()) {}

Communicator::Communicator(std::shared_ptr<CommunicatorBackend> backend)
    : backend_(std::move(backend)), traffic_(std::make_shared<std::map<std::string, TrafficCounter>>()) {}

void Communicator::all_reduce(at::Tensor tensor, Reduction op) const {
  Counted counted(*traffic_, "all_reduce", tensor);
  if (size() == 1 || tensor.numel() == 0) return;
  in_place(tensor, [&](at::Tensor& dense) { backend_->all_reduce(dense, op); });
}

double Communicator::all_reduce(double value, Reduction op) const {
  auto tensor = at::full({1}, value, at::kDouble);
  all_reduce(tensor, op);
  return tensor.item<double>();
}

int64_t Communicator::all_reduce(int64_t value, Reduction op) const {
  auto tensor = at::full({1}, value, at::kLong);
  all_reduce(tensor, op);
  return tensor.item<int64_t>();
}

at::Tensor Communicator::reduce_scatter(const at::Tensor& input) const {
  Counted counted(*traffic_, "reduce_scatter", input);
  require_rows(input, "reduce_scatter");
  if (input.size(0) % size() != 0)
    throw Error(ErrorClass::communication, "reduce_scatter of " + std::to_string(input.size(0)) +
                                               " rows over " + std::to_string(size()) +
                                               " ranks does not divide");
  const auto dense = input.detach().contiguous();
  auto output = at::empty(with_rows(dense, dense.size(0) / size()), dense.options());
  if (output.numel() > 0) backend_->reduce_scatter(dense, output);
  return output;
}

at::Tensor Communicator::all_gather(const at::Tensor& input) const {
  Counted counted(*traffic_, "all_gather", input);
  require_rows(input, "all_gather");
  const auto dense = input.detach().contiguous();
  auto output = at::empty(with_rows(dense, dense.size(0) * size()), dense.options());
  if (output.numel() > 0) backend_->all_gather(dense, output);
  return output;
}

at::Tensor Communicator::all_gather_rows(const at::Tensor& input) const {
  require_rows(input, "all_gather_rows");
  const auto counts = all_gather(at::full({1}, input.size(0), at::kLong));
  const auto most = counts.max().item<int64_t>();
  if (counts.min().item<int64_t>() == most) return all_gather(input);
  auto padded = at::zeros(with_rows(input, most), input.options().requires_grad(false));
  padded.narrow(0, 0, input.size(0)).copy_(input.detach());
  const auto all = all_gather(padded);
  std::vector<at::Tensor> parts;
  for (int r = 0; r < size(); ++r) parts.push_back(all.narrow(0, r * most, counts[r].item<int64_t>()));
  return at::cat(parts);
}

void Communicator::broadcast(at::Tensor tensor, int root) const {
  Counted counted(*traffic_, "broadcast", tensor);
  if (size() == 1 || tensor.numel() == 0) return;
  in_place(tensor, [&](at::Tensor& dense) { backend_->broadcast(dense, root); });
}

std::string Communicator::broadcast(const std::string& text, int root) const {
  auto length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  broadcast(length, root);
  auto bytes = at::empty({length.item<int64_t>()}, at::kByte);
  if (rank() == root && !text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  broadcast(bytes, root);
  return {static_cast<const char*>(bytes.data_ptr()), static_cast<size_t>(bytes.numel())};
}

void Communicator::send(const at::Tensor& tensor, int destination, int tag) const {
  Counted counted(*traffic_, "send", tensor);
  backend_->send(tensor.detach().contiguous(), destination, tag);
}

void Communicator::receive(at::Tensor tensor, int source, int tag) const {
  Counted counted(*traffic_, "receive", tensor);
  in_place(tensor, [&](at::Tensor& dense) { backend_->receive(dense, source, tag); });
}

void Communicator::barrier() const {
  const InCollective running("barrier");
  backend_->barrier();
}

Communicator Communicator::split(int color, int key) const {
  const InCollective running("split");
  return Communicator(backend_->split(color, key));
}

}  // namespace efface
