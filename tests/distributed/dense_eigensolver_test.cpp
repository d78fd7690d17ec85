#include "distributed/eigensolvers/checks.hpp"
#include "distributed/eigensolvers/dense.hpp"
#include "distributed/eigensolvers/tridiagonal.hpp"
#include "distributed/philox.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::relative_error;

at::Tensor tridiagonal(const at::Tensor& d, const at::Tensor& e) { return d.diag() + e.diag(1) + e.diag(-1); }

std::vector<double> numbers(const at::Tensor& t) {
  return {t.data_ptr<double>(), t.data_ptr<double>() + t.numel()};
}

/// All eigenpairs against the matrix itself, and each wanted range against all.
void expect_solved(const at::Tensor& d, const at::Tensor& e, const std::string& what) {
  const int64_t n = d.numel();
  const TridiagonalEigenpairs pairs(numbers(d), numbers(e));
  const at::Tensor matrix = tridiagonal(d, e), values = at::tensor(pairs.values(), at::kDouble);
  const double norm = std::max(matrix.norm().item<double>(), 1e-300);
  const at::Tensor rows = pairs.vectors(0, n);
  EXPECT_LT((at::mm(rows, matrix) - rows * values.unsqueeze(1)).norm().item<double>() / norm, 1e-14 * n)
      << what;
  EXPECT_LT((at::mm(rows, rows.t()) - at::eye(n, at::kDouble)).norm().item<double>(), 1e-14 * n) << what;
  EXPECT_LT((values - at::linalg_eigvalsh(matrix)).abs().max().item<double>() / norm, 1e-14) << what;
  for (const auto& [begin, end] : {std::pair{int64_t{0}, n / 3}, {n / 3, n}, {n / 2, n / 2}})
    EXPECT_LT((pairs.vectors(begin, end) - rows.narrow(0, begin, end - begin)).norm().item<double>(), 1e-13)
        << what;
}

TEST(Tridiagonal, SolvesWhatIsRandomRepeatedSplitAndGraded) {
  for (int64_t n : {1, 2, 3, 96, 97, 193, 400}) {
    const auto random = [&](const std::string& name, int64_t count) {
      return philox_normal({4, "tridiagonal", name}, 1, std::max<int64_t>(1, count))
          .to(at::kDouble)
          .view({-1})
          .narrow(0, 0, count)
          .contiguous();
    };
    const at::Tensor d = random("d", n), e = random("e", n - 1);
    const std::string size = " of " + std::to_string(n);
    expect_solved(d, e, "random" + size);
    expect_solved(at::zeros_like(d), at::zeros_like(e), "zero" + size);
    expect_solved(at::ones_like(d), at::zeros_like(e), "identity" + size);
    expect_solved(d, at::zeros_like(e), "diagonal" + size);
    expect_solved(at::full_like(d, 2), at::full_like(e, -1), "second difference" + size);
    const at::Tensor grades = at::logspace(0, -18, n, 10., at::kDouble);
    expect_solved(grades, grades.narrow(0, 0, n - 1).contiguous() * .4, "graded" + size);
    // Wilkinson's matrices glued together: eigenvalues that agree to rounding, in pairs and across the glue.
    const at::Tensor hill = (at::arange(n, at::kDouble).remainder(21) - 10).abs();
    const at::Tensor glue = at::where(at::arange(n - 1).remainder(21).eq(20), 1e-8, 1.).to(at::kDouble);
    expect_solved(hill, glue, "glued Wilkinson" + size);
  }
}

at::Tensor covariance(int64_t n) {
  const auto x = philox_normal({5, "dense_eigensolver", "x"}, 2 * n, n).to(at::kDouble);
  return at::mm(x.t(), x) / static_cast<double>(2 * n);
}

/// A way whose vectors are wrong by `error`.
DenseWay faulty(double error) {
  return {"a faulty way", [error](const at::Tensor& symmetric) {
            DenseSolution solution = dsyevd_way().solve(symmetric);
            const auto rows = solution.rows;
            solution.rows = [rows, error](int64_t begin, int64_t end) { return rows(begin, end) + error; };
            return solution;
          }};
}

TEST(Dense, BothWaysGiveTheSameSubspace) {
  const at::Tensor matrix = covariance(300);
  const WantedVectors leading = [](const at::Tensor&) { return std::pair<int64_t, int64_t>{0, 120}; };
  const Eigenpairs one = solve_dense(matrix, leading, {reduction_way()}),
                   other = solve_dense(matrix, leading, {dsyevd_way()});
  EXPECT_LT(relative_error(one.values, other.values), 1e-13);
  EXPECT_LT(relative_error(at::mm(one.vectors, one.vectors.t()), at::mm(other.vectors, other.vectors.t())),
            1e-11);
  EXPECT_LT(one.residual, 1e-14);
  EXPECT_LT(one.orthogonality, 1e-14);
}

TEST(Dense, TakesTheNextWayWhenAProofFails) {
  const at::Tensor matrix = covariance(150);
  const Eigenpairs pairs = solve_dense(matrix, {}, {faulty(1e-6), dsyevd_way()});
  EXPECT_EQ(pairs.solver, "lapack dsyevd, after a faulty way failed");
  EXPECT_LT(pairs.residual, 1e-13);
}

TEST(Dense, RefusesWhenEveryWayFails) {
  EXPECT_THROW(solve_dense(covariance(20), {}, {faulty(1e-6), faulty(1e-8)}), SolverFailed);
  EXPECT_NO_THROW(solve_dense(covariance(20), {}, {faulty(1e-14)}));
}

TEST(Dense, AnErrorOfTheCallerIsNotTriedAgain) {
  int asked = 0;
  const WantedVectors refuse = [&](const at::Tensor&) -> std::pair<int64_t, int64_t> {
    ++asked;
    throw Error(ErrorClass::numeric, "no rank");
  };
  EXPECT_THROW(solve_dense(covariance(20), refuse, {dsyevd_way(), dsyevd_way()}), Error);
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace efface
