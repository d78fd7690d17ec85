#include "distributed/block_rows.hpp"

#include <cmath>

#include "distributed/error.hpp"
#include "distributed/mesh.hpp"

namespace efface {

BlockRows make_block_rows(int64_t n, const Communicator& group, at::ScalarType dtype) {
  const auto [begin, end] = even_range(n, group.rank(), group.size());
  return {n, begin, at::zeros({end - begin, n}, dtype), group};
}

at::Tensor gather_block_rows(const BlockRows& matrix, int root) {
  const auto& group = matrix.group;
  if (group.rank() != root) {
    if (matrix.rows() > 0) group.send(matrix.local, root);
    return {};
  }
  auto whole = at::empty({matrix.n, matrix.local.size(1)}, matrix.local.options().requires_grad(false));
  for (int r = 0; r < group.size(); ++r) {
    const auto [begin, end] = even_range(matrix.n, r, group.size());
    auto rows = whole.narrow(0, begin, end - begin);
    if (r == root)
      rows.copy_(matrix.local);
    else if (end > begin)
      group.receive(rows, r);
  }
  return whole;
}

double trace(const BlockRows& matrix) {
  const auto mine = matrix.local.diagonal(matrix.offset).sum(at::kDouble).item<double>();
  return matrix.group.all_reduce(mine);
}

double frobenius_norm(const BlockRows& matrix) {
  // Scaled by the largest entry: squares of entries near the ends of the range would overflow or vanish.
  const double mine = matrix.rows() == 0 ? 0. : matrix.local.abs().max().item<double>();
  const double largest = matrix.group.all_reduce(mine, Reduction::max);
  if (largest == 0 || !std::isfinite(largest)) return largest;
  const auto scaled = matrix.local.to(at::kDouble) / largest;
  return largest * std::sqrt(matrix.group.all_reduce(scaled.square().sum().item<double>()));
}

}  // namespace efface
