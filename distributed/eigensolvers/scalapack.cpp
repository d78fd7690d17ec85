#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "distributed/activity.hpp"
#include "distributed/eigensolver.hpp"
#include "distributed/eigensolvers/block_cyclic.hpp"
#include "distributed/eigensolvers/checks.hpp"
#include "distributed/error.hpp"
#include "distributed/mesh.hpp"

extern "C" {
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridinit(int* context, const char* order, int rows, int columns);
void Cblacs_gridexit(int context);
void descinit_(int* descriptor, const int* m, const int* n, const int* mb, const int* nb,
               const int* first_row, const int* first_column, const int* context, const int* leading,
               int* info);
void pdsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* ia, const int* ja,
              const int* desca, double* w, double* z, const int* iz, const int* jz, const int* descz,
              double* work, const int* lwork, int* iwork, const int* liwork, int* info);
}

namespace efface {
namespace {

/// A P x 1 grid of the ranks of a group, in their order.
class BlacsGrid {
 public:
  explicit BlacsGrid(const Communicator& group)
      : system_(Csys2blacs_handle(MPI_Comm_f2c(mpi_fortran_handle(group)))), context_(system_) {
    Cblacs_gridinit(&context_, "Column-major", group.size(), 1);
  }
  ~BlacsGrid() {
    Cblacs_gridexit(context_);
    Cfree_blacs_system_handle(system_);
  }
  BlacsGrid(const BlacsGrid&) = delete;
  BlacsGrid& operator=(const BlacsGrid&) = delete;
  int context() const { return context_; }

 private:
  int system_;
  int context_;
};

/// The largest magnitude over all ranks; infinity where any rank has NaN, which MPI's maximum would lose.
double largest_over(const Communicator& group, const at::Tensor& tensor) {
  const double mine = largest_magnitude(tensor);
  return group.all_reduce(std::isnan(mine) ? std::numeric_limits<double>::infinity() : mine, Reduction::max);
}

/// Calls visit(begin, rows of rank s) for each rank's rows of `local` in turn; they are broadcast.
template <typename Visit>
void for_rows_of_each_rank(const BlockRows& layout, const at::Tensor& local, const Visit& visit) {
  for (int s = 0; s < layout.group.size(); ++s) {
    const auto [begin, end] = even_range(layout.n, s, layout.group.size());
    auto rows = s == layout.group.rank() ? local : at::empty({end - begin, local.size(1)}, local.options());
    layout.group.broadcast(rows, s);
    visit(begin, rows);
  }
}

/// Makes `local` the matrix that its lower triangle describes. @return the largest |C_ij - C_ji| on any rank
double mirror_lower(const BlockRows& matrix, at::Tensor& local) {
  const at::Tensor given = local.clone();
  double difference = 0;
  for_rows_of_each_rank(matrix, given, [&](int64_t begin, const at::Tensor& rows) {
    auto block = local.narrow(1, begin, rows.size(0));
    const auto mirrored = rows.narrow(1, matrix.offset, matrix.rows()).t();
    difference = std::max(difference, largest_magnitude(block - mirrored));
    if (begin > matrix.offset) block.copy_(mirrored);
    if (begin == matrix.offset) block.copy_(block.tril() + block.tril(-1).t());
  });
  return matrix.group.all_reduce(difference, Reduction::max);
}

struct Pdsyevd {
  std::vector<double> values;  ///< [padded] ascending
  at::Tensor vectors;          ///< [padded, R]: row j is this rank's part of eigenvector j
};

Pdsyevd pdsyevd(at::Tensor a, const BlockCyclicLayout& layout, const Communicator& group) {
  const BlacsGrid grid(group);
  const int n = static_cast<int>(layout.padded()), nb = static_cast<int>(layout.nb), one = 1, zero = 0;
  const int leading = static_cast<int>(layout.rows()), context = grid.context();
  int descriptor[9], info = 0;
  descinit_(descriptor, &n, &n, &nb, &nb, &zero, &zero, &context, &leading, &info);
  Pdsyevd result{std::vector<double>(static_cast<size_t>(n)), at::zeros_like(a)};
  const auto call = [&](double* work, int work_size, int* integers, int integers_size) {
    const InCollective running("pdsyevd");
    pdsyevd_("V", "L", &n, a.data_ptr<double>(), &one, &one, descriptor, result.values.data(),
             result.vectors.data_ptr<double>(), &one, &one, descriptor, work, &work_size, integers,
             &integers_size, &info);
    // Every rank must learn of it, or the others would wait in the next collective.
    require_converged(
        static_cast<int>(group.all_reduce(static_cast<int64_t>(std::abs(info)), Reduction::max)), n,
        "pdsyevd");
  };
  double work_wanted = 0;
  int integers_wanted = 0;
  call(&work_wanted, -1, &integers_wanted, -1);
  // The query of ScaLAPACK 2.2 leaves out what pdormtr asks for on some grids: (nb (nb - 1)) / 2 + (R + n) nb
  // + nb^2.
  const int64_t slack = int64_t{2} * nb * nb + int64_t{nb} * (layout.rows() + n);
  const auto work_size = static_cast<int64_t>(work_wanted) + slack;
  if (work_size > std::numeric_limits<int>::max())
    throw Error(ErrorClass::numeric, "pdsyevd cannot count its workspace for n = " + std::to_string(n),
                "spread the matrix over more ranks");
  auto work = at::empty({work_size}, at::kDouble);
  std::vector<int> integers(static_cast<size_t>(integers_wanted) + static_cast<size_t>(n));
  call(work.data_ptr<double>(), static_cast<int>(work_size), integers.data(),
       static_cast<int>(integers.size()));
  return result;
}

/// Sets residual and orthogonality: C V - V diag(lambda) by the rows of V, V^T V - I by panels of its
/// columns.
void prove(const BlockRows& matrix, const at::Tensor& local, double norm, Eigenpairs& pairs) {
  const auto& group = matrix.group;
  const int64_t count = pairs.vectors.size(1);
  auto residual = pairs.vectors * -pairs.values.narrow(0, pairs.first, count);
  for_rows_of_each_rank(matrix, pairs.vectors, [&](int64_t begin, const at::Tensor& rows) {
    residual.addmm_(local.narrow(1, begin, rows.size(0)), rows);
  });
  pairs.residual = std::sqrt(group.all_reduce(residual.square().sum().item<double>())) / norm;

  double orthogonality = 0;
  for (int s = 0; s < group.size(); ++s) {
    const auto [begin, end] = even_range(count, s, group.size());
    auto products = at::mm(pairs.vectors.t(), pairs.vectors.narrow(1, begin, end - begin));
    group.all_reduce(products);
    products.diagonal(-begin).sub_(1);
    orthogonality += products.square().sum().item<double>();
  }
  pairs.orthogonality = std::sqrt(orthogonality / static_cast<double>(std::max<int64_t>(1, count)));
}

}  // namespace

Eigenpairs solve_scalapack(const BlockRows& matrix, const WantedVectors& wanted) {
  const auto begin = std::chrono::steady_clock::now();
  const auto& group = matrix.group;
  if (group.size() == 1) return solve_lapack(matrix.local, wanted);
  if (mpi_fortran_handle(group) < 0)
    throw Error(ErrorClass::communication, "ScaLAPACK needs a group over MPI",
                std::string("this one is over ") + group.backend_name());

  auto local =
      matrix.local.detach().to(at::kCPU, at::kDouble, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const double largest = largest_over(group, local);
  require_finite(largest, matrix.n, "pdsyevd");
  require_symmetric(mirror_lower(matrix, local), largest, matrix.n, "pdsyevd");
  const double scale = largest > 0 ? largest : 1;
  local.div_(scale);
  const double scaled_norm = std::sqrt(group.all_reduce(local.square().sum().item<double>()));
  const double norm = scaled_norm > 0 ? scaled_norm : 1;

  const auto layout = block_cyclic_layout(matrix.n, group.size());
  const auto solved = pdsyevd(to_block_cyclic(local, layout, group.rank(), -2 * norm), layout, group);
  Eigenpairs pairs;
  const int64_t padding = layout.padding();
  pairs.values = at::tensor(solved.values, at::kDouble).narrow(0, padding, matrix.n).flip(0);
  const auto [first, last] = wanted_range(wanted, pairs.values * scale);
  pairs.first = first;
  pairs.vectors = solved.vectors.narrow(0, padding + matrix.n - last, last - first)
                      .narrow(1, 0, matrix.rows())
                      .flip(0)
                      .t()
                      .contiguous();
  pairs.solver = "scalapack pdsyevd on " + std::to_string(group.size()) + " ranks";
  prove(matrix, local, norm, pairs);
  pairs.values.mul_(scale);
  pairs.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  require_proven(pairs);
  return pairs;
}

}  // namespace efface
