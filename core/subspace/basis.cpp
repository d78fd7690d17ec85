// From eigenvectors and a rank to what a projector needs.
#include <algorithm>

#include "core/subspace/projector.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

// Weights below this change a product by less than fp32 rounding does; their columns need not be kept.
constexpr double kSmallestWeight = 1e-7;
// A sink input this much inside the retain subspace is protected already.
constexpr double kSmallestSinkPart = 1e-6;

// The unit vector of the sink input's part outside span(retained); undefined when there is none.
at::Tensor sink_direction(const at::Tensor& sink_mean, const at::Tensor& retained) {
  if (!sink_mean.defined()) return {};
  const at::Tensor sink = sink_mean.to(at::kCPU, at::kDouble);
  at::Tensor rest = sink - retained.matmul(retained.t().matmul(sink));
  rest =
      rest - retained.matmul(retained.t().matmul(rest));  // once more: the first pass leaves rounding behind
  const double length = rest.norm().item<double>();
  if (!(length > kSmallestSinkPart * sink.norm().item<double>())) return {};
  return rest / length;
}

// Columns spanning span(null) without `direction`, which lies in it: a Householder reflection takes the
// direction's coordinates c to the first axis, the other axes are kept.
at::Tensor without_direction(const at::Tensor& null, const at::Tensor& direction) {
  at::Tensor c = null.t().matmul(direction);
  at::Tensor v = c.clone();
  const double sign = c[0].item<double>() >= 0 ? 1 : -1;
  v[0] += sign * c.norm().item<double>();
  v = v / v.norm();
  return (null - 2 * at::outer(null.matmul(v), v)).narrow(1, 1, null.size(1) - 1);
}

at::Tensor relaxed_weights(const at::Tensor& values, const ProjectorOptions& options) {
  const double mean = values.mean().item<double>();
  if (options.kind == ProjectorKind::sgp) {
    const double a = options.sgp_scale;
    return ((a + 1) * values / (a * values + mean)).clamp(0, 1);
  }
  const double shift = options.ridge_shift > 0 ? options.ridge_shift : mean;
  return values / (values + shift);
}

}  // namespace

Basis make_basis(const InputId& id, const at::Tensor& values, const at::Tensor& vectors, int64_t k,
                 const ProjectorOptions& options, const at::Tensor& sink_mean) {
  Basis basis;
  basis.id = id;
  basis.n = values.numel();
  basis.k = k;
  basis.eigenvalues = values.to(at::kCPU, at::kDouble).contiguous();
  if (options.kind == ProjectorKind::none) return basis;

  const int64_t n = basis.n;
  const at::Tensor all = vectors.to(at::kCPU, at::kDouble);
  at::Tensor kept, weights;
  if (options.kind == ProjectorKind::sgp || options.kind == ProjectorKind::ridge) {
    if (options.protect_sink)
      throw Error(ErrorClass::recipe, "nullspace.protect_sink does not go with the sgp and ridge projectors",
                  "use hard or leak, or count position 0");
    weights = relaxed_weights(basis.eigenvalues.clamp_min(0), options);
    const int64_t m = (weights > kSmallestWeight).sum().item<int64_t>();
    kept = all.narrow(1, 0, m);
    weights = weights.narrow(0, 0, m);
  } else {
    const at::Tensor retained = all.narrow(1, 0, k);
    const at::Tensor sink = options.protect_sink ? sink_direction(sink_mean, retained) : at::Tensor();
    basis.complement = options.kind == ProjectorKind::hard && 2 * k > n;
    if (basis.complement) {
      kept = all.narrow(1, k, n - k);
      if (sink.defined() && k < n) kept = without_direction(kept, sink);
    } else {
      kept = sink.defined() ? at::cat({retained, sink.unsqueeze(1)}, 1) : retained;
    }
    weights = at::ones({kept.size(1)}, at::kDouble);
    if (options.kind == ProjectorKind::leak) weights.narrow(0, 0, k).fill_(1 - options.leak);
  }
  basis.vectors = kept.to(at::kFloat).contiguous();
  basis.weights = weights.to(at::kFloat).contiguous();
  return basis;
}

}  // namespace efface
