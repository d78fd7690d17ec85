// What an update does to tokens, from their second moment: ||dW X||_F^2 = N tr(dW C dW^T).
#include <algorithm>
#include <cmath>

#include "core/subspace/projector.hpp"

namespace efface {
namespace {

// tr(W C W^T) where `c` is rows [offset, offset + rows) of C; the whole when summed over the block rows.
double energy(const at::Tensor& w, const at::Tensor& c, int64_t offset) {
  return (w.narrow(1, offset, c.size(0)).matmul(c) * w).sum().item<double>();
}

Leak from_energies(double update_energy, double output_energy, double update_norm, double total,
                   double lambda_next) {
  const auto root = [](double numerator, double denominator) {
    return denominator > 0 ? std::sqrt(std::max(numerator, 0.0) / denominator) : 0.0;
  };
  return {root(update_energy, update_norm * update_norm * total), root(update_energy, output_energy),
          root(lambda_next, total)};
}

at::Tensor as_double(const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kDouble); }

}  // namespace

Leak measure_leak(const at::Tensor& dw, const at::Tensor& w0, const at::Tensor& c, double lambda_next) {
  const at::Tensor update = as_double(dw), matrix = as_double(c);
  return from_energies(energy(update, matrix, 0), energy(as_double(w0), matrix, 0),
                       update.norm().item<double>(), matrix.diagonal().sum().item<double>(), lambda_next);
}

Leak measure_leak(const at::Tensor& dw, const at::Tensor& w0, const BlockRows& c, double lambda_next) {
  const at::Tensor update = as_double(dw), matrix = as_double(c.local);
  const double update_energy = c.group.all_reduce(energy(update, matrix, c.offset));
  const double output_energy = c.group.all_reduce(energy(as_double(w0), matrix, c.offset));
  return from_energies(update_energy, output_energy, update.norm().item<double>(), trace(c), lambda_next);
}

double sink_leak(const at::Tensor& dw, const at::Tensor& w0, const at::Tensor& sink_mean) {
  const at::Tensor sink = as_double(sink_mean);
  const double output = as_double(w0).matmul(sink).norm().item<double>();
  return output > 0 ? as_double(dw).matmul(sink).norm().item<double>() / output : 0;
}

}  // namespace efface
