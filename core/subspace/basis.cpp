// From eigenvectors and a rank to what a projector needs.
#include <algorithm>
#include <cmath>

#include "core/subspace/projector.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

// Weights below this change a product by less than fp32 rounding does; their columns need not be kept.
constexpr double kSmallestWeight = 1e-7;
// A sink input this much inside the retain subspace is protected already.
constexpr double kSmallestSinkPart = 1e-6;

// The unit vector of the sink input's part outside the retain subspace; undefined when there is none. `basis`
// spans the null space where `null`, else the retain subspace.
at::Tensor sink_direction(const at::Tensor& sink_mean, const at::Tensor& basis, bool null) {
  if (!sink_mean.defined() || (null && basis.size(1) == 0)) return {};
  const at::Tensor sink = sink_mean.to(at::kCPU, at::kDouble);
  const auto outside = [&](const at::Tensor& x) {
    const at::Tensor inside = basis.matmul(basis.t().matmul(x));
    return null ? inside : x - inside;
  };
  const at::Tensor rest = outside(outside(sink));  // twice: the first pass leaves rounding behind
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
  const double total = values.sum().item<double>();
  if (options.kind == ProjectorKind::sgp) {
    const double a = options.sgp_scale, mean = total / static_cast<double>(values.numel());
    return ((a + 1) * values / (a * values + mean)).clamp(0, 1);
  }
  return values / (values + ridge_shift(options, total, values.numel()));
}

// The thinner side of a hard projector is its null space.
bool keeps_null_space(const ProjectorOptions& options, int64_t n, int64_t k) {
  return options.kind == ProjectorKind::hard && 2 * k > n;
}

}  // namespace

double ridge_shift(const ProjectorOptions& options, double trace, int64_t n) {
  return options.ridge_shift > 0 ? options.ridge_shift : trace / static_cast<double>(n);
}

std::pair<int64_t, int64_t> basis_vectors(const ProjectorOptions& options, int64_t n, int64_t k) {
  switch (options.kind) {
    case ProjectorKind::none:
      return {0, 0};
    case ProjectorKind::sgp:
    case ProjectorKind::ridge:
      return {0, n};
    default:
      return keeps_null_space(options, n, k) ? std::pair{k, n} : std::pair{int64_t{0}, k};
  }
}

Basis make_basis(const InputId& id, const at::Tensor& values, const at::Tensor& vectors, int64_t k,
                 const ProjectorOptions& options, const at::Tensor& sink_mean) {
  Basis basis;
  basis.id = id;
  basis.n = values.numel();
  basis.k = k;
  basis.eigenvalues = values.to(at::kCPU, at::kDouble).contiguous();
  if (options.kind == ProjectorKind::none) return basis;

  const int64_t n = basis.n;
  const auto [begin, end] = basis_vectors(options, n, k);
  at::Tensor kept = vectors.to(at::kCPU, at::kDouble), weights;
  if (kept.size(1) == n) kept = kept.narrow(1, begin, end - begin);
  if (options.kind == ProjectorKind::sgp || options.kind == ProjectorKind::ridge) {
    if (options.protect_sink)
      throw Error(ErrorClass::recipe, "nullspace.protect_sink does not go with the sgp and ridge projectors",
                  "use hard or leak, or count position 0");
    weights = relaxed_weights(basis.eigenvalues.clamp_min(0), options);
    const int64_t m = (weights > kSmallestWeight).sum().item<int64_t>();
    kept = kept.narrow(1, 0, m);
    weights = weights.narrow(0, 0, m);
  } else {
    basis.complement = keeps_null_space(options, n, k);
    const at::Tensor sink =
        options.protect_sink ? sink_direction(sink_mean, kept, basis.complement) : at::Tensor();
    if (sink.defined())
      kept = basis.complement ? without_direction(kept, sink) : at::cat({kept, sink.unsqueeze(1)}, 1);
    weights = at::ones({kept.size(1)}, at::kDouble);
    if (options.kind == ProjectorKind::leak) weights.narrow(0, 0, k).fill_(1 - options.leak);
  }
  basis.vectors = kept.to(at::kFloat).contiguous();
  basis.weights = weights.to(at::kFloat).contiguous();
  return basis;
}

Basis make_ridge_basis(const InputId& id, const at::Tensor& factor) {
  Basis basis;
  basis.id = id;
  basis.n = factor.size(0);
  basis.complement = true;
  basis.k = basis.n - std::llround(factor.square().sum().item<double>());
  basis.vectors = factor.to(at::kFloat).contiguous();
  basis.weights = at::ones({basis.n}, at::kFloat);
  basis.eigenvalues = at::empty({0}, at::kDouble);
  return basis;
}

}  // namespace efface
