#include "distributed/eigensolver.hpp"

#include <limits>

#include "distributed/eigensolvers/block_cyclic.hpp"
#include "distributed/error.hpp"
#include "distributed/mesh.hpp"
#include "distributed/philox.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::relative_error;
using testing::world;

at::Tensor random_orthogonal(int64_t n, const std::string& name) {
  const auto random = philox_normal({1, "eigensolver_test", name}, n, n).to(at::kDouble);
  return std::get<0>(at::linalg_qr(random));
}

/// Q diag(values) Q^T, the same on every rank.
at::Tensor with_spectrum(const at::Tensor& values) {
  const auto q = random_orthogonal(values.size(0), "q");
  const auto matrix = at::mm(q * values, q.t());
  return (matrix + matrix.t()) / 2;
}

/// Eigenvalues of X^T X / rows with fewer rows than columns where `rows` < n, so some are zero.
at::Tensor random_covariance(int64_t n, int64_t rows) {
  const auto x = philox_normal({2, "eigensolver_test", "x"}, rows, n).to(at::kDouble);
  return at::mm(x.t(), x) / static_cast<double>(rows);
}

BlockRows spread(const at::Tensor& matrix) {
  auto rows = make_block_rows(matrix.size(0), world(), matrix.scalar_type());
  rows.local.copy_(matrix.narrow(0, rows.offset, rows.rows()));
  return rows;
}

/// V as a whole on every rank, whichever solver it came from.
struct Solved {
  at::Tensor values, vectors;
  double residual, orthogonality;
};
Solved solve(const at::Tensor& matrix, bool over_ranks) {
  const auto pairs = over_ranks ? solve_scalapack(spread(matrix)) : solve_lapack(matrix);
  const auto vectors = over_ranks ? world().all_gather_rows(pairs.vectors) : pairs.vectors;
  return {pairs.values, vectors, pairs.residual, pairs.orthogonality};
}

ErrorClass error_of(const std::function<void()>& action, const std::string& word) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    return error.kind();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorClass::usage;
}

/// Each statement holds for both solvers.
class Eigensolver : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Solvers, Eigensolver, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Scalapack" : "Lapack"; });

TEST_P(Eigensolver, FindsTheSpectrumAMatrixWasMadeOf) {
  for (int64_t n : {1, 2, 3, 5, 12, 65, 130, 257}) {
    const auto values = at::linspace(3, -1, n, at::kDouble);
    const auto matrix = with_spectrum(values);
    const auto solved = solve(matrix, GetParam());
    EXPECT_LT((solved.values - values).abs().max().item<double>(), 1e-12) << n;
    const auto rebuilt = at::mm(solved.vectors * solved.values, solved.vectors.t());
    EXPECT_LT(relative_error(rebuilt, matrix), 1e-12) << n;
    const auto products = at::mm(solved.vectors.t(), solved.vectors);
    EXPECT_LT(relative_error(products, at::eye(n, at::kDouble)), 1e-12) << n;
  }
}

TEST_P(Eigensolver, AgreesWithAnotherSolverUpToSigns) {
  const auto matrix = random_covariance(96, 300);
  const auto solved = solve(matrix, GetParam());
  const auto [values, vectors] = at::linalg_eigh(matrix);
  EXPECT_LT(relative_error(solved.values, values.flip(0)), 1e-13);
  const auto cosines = (solved.vectors * vectors.flip(1)).sum(0).abs();
  EXPECT_GT(cosines.min().item<double>(), 1 - 1e-10);
}

TEST_P(Eigensolver, HandlesMatricesOfLowRank) {
  const auto solved = solve(random_covariance(80, 30), GetParam());
  EXPECT_GT(solved.values[29].item<double>(), 1e-3);
  EXPECT_LT(solved.values.narrow(0, 30, 50).abs().max().item<double>(), 1e-13);
}

TEST_P(Eigensolver, FindsRepeatedEigenvaluesWithOrthogonalVectors) {
  auto values = at::ones({70}, at::kDouble);
  values.narrow(0, 0, 20).fill_(5);
  values.narrow(0, 60, 10).fill_(0);
  const auto matrix = with_spectrum(values);
  const auto solved = solve(matrix, GetParam());
  EXPECT_LT((solved.values - values).abs().max().item<double>(), 1e-13);
  const auto identity = at::mm(solved.vectors.t(), solved.vectors);
  EXPECT_LT(relative_error(identity, at::eye(70, at::kDouble)), 1e-13);
}

TEST_P(Eigensolver, SolvesTheZeroMatrixAndDiagonalOnes) {
  const auto zero = solve(at::zeros({9, 9}, at::kDouble), GetParam());
  EXPECT_EQ(zero.values.abs().max().item<double>(), 0);
  EXPECT_LT(relative_error(at::mm(zero.vectors, zero.vectors.t()), at::eye(9, at::kDouble)), 1e-14);
  const auto diagonal = at::tensor({2., 7., -1., 0., 3.}, at::kDouble);
  const auto solved = solve(diagonal.diag(), GetParam());
  EXPECT_LT(relative_error(solved.values, at::tensor({7., 3., 2., 0., -1.}, at::kDouble)), 1e-14);
}

TEST_P(Eigensolver, KeepsItsAccuracyAtAnyScale) {
  const auto matrix = random_covariance(40, 90);
  const auto reference = solve(matrix, GetParam()).values;
  for (double scale : {1e-200, 1e-30, 1e30, 1e200})
    EXPECT_LT((solve(matrix * scale, GetParam()).values / scale - reference).abs().max().item<double>(),
              1e-12);
}

TEST_P(Eigensolver, AcceptsSinglePrecisionInput) {
  const auto matrix = random_covariance(33, 90).to(at::kFloat);
  const auto lower = matrix.tril() + matrix.tril(-1).t();
  const auto expected = std::get<0>(at::linalg_eigh(lower.to(at::kDouble))).flip(0);
  EXPECT_LT(relative_error(solve(lower, GetParam()).values, expected), 1e-13);
}

TEST_P(Eigensolver, ProvesItsAnswer) {
  const auto matrix = random_covariance(96, 200);
  const auto solved = solve(matrix, GetParam());
  const auto difference = at::mm(matrix, solved.vectors) - solved.vectors * solved.values;
  const double residual = (difference.norm() / matrix.norm()).item<double>();
  EXPECT_NEAR(solved.residual, residual, 0.5 * residual + 1e-16);
  EXPECT_LT(solved.residual, 1e-13);
  EXPECT_GT(solved.orthogonality, 0);
  EXPECT_LT(solved.orthogonality, 1e-13);
}

TEST_P(Eigensolver, GivesTheWantedVectorsAloneAndProvesThem) {
  const int64_t n = 45;
  const auto matrix = random_covariance(n, 100);
  const auto all = solve(matrix, GetParam());
  for (const auto& [begin, end] : {std::pair{0, 45}, {0, 7}, {30, 45}, {12, 13}, {20, 20}}) {
    const WantedVectors wanted = [begin = begin, end = end, &all](const at::Tensor& values) {
      EXPECT_LT(relative_error(values, all.values), 1e-14);
      return std::pair<int64_t, int64_t>{begin, end};
    };
    const auto pairs = GetParam() ? solve_scalapack(spread(matrix), wanted) : solve_lapack(matrix, wanted);
    const auto vectors = GetParam() ? world().all_gather_rows(pairs.vectors) : pairs.vectors;
    EXPECT_EQ(pairs.first, begin);
    ASSERT_EQ(vectors.size(1), end - begin);
    const auto cosines = (vectors * all.vectors.narrow(1, begin, end - begin)).sum(0).abs();
    EXPECT_LT((1 - cosines).abs().sum().item<double>(), 1e-10);
    EXPECT_LT(pairs.residual, 1e-13);
    EXPECT_LT(pairs.orthogonality, 1e-13);
  }
  const WantedVectors too_many = [](const at::Tensor&) { return std::pair<int64_t, int64_t>{0, 46}; };
  EXPECT_EQ(error_of(
                [&] {
                  if (GetParam())
                    solve_scalapack(spread(matrix), too_many);
                  else
                    solve_lapack(matrix, too_many);
                },
                "46 are wanted of 45"),
            ErrorClass::numeric);
}

TEST(Ridge, IsWhatTheEigenvectorsGive) {
  for (int64_t n : {1, 2, 17, 130}) {
    const auto matrix = random_covariance(n, 2 * n);
    const double tau = matrix.diagonal().mean().item<double>();
    const auto pairs = solve_lapack(matrix);
    const auto expected = at::mm(pairs.vectors * (tau / (pairs.values + tau)), pairs.vectors.t());
    const auto factor = solve_ridge(matrix, tau);
    EXPECT_LT(relative_error(at::mm(factor.vectors, factor.vectors.t()), expected), 1e-12) << n;
    EXPECT_LT(factor.residual, 1e-12);
  }
}

TEST(Ridge, TakesWhatHasNoFullRankAtAnyScale) {
  for (double scale : {1e-200, 1., 1e200}) {
    const auto matrix = random_covariance(40, 9) * scale;
    const double tau = 0.01 * scale;
    const auto shifted = matrix / scale + 0.01 * at::eye(40, at::kDouble);
    const auto factor = solve_ridge(matrix, tau);
    EXPECT_LT(relative_error(at::mm(factor.vectors, factor.vectors.t()), 0.01 * at::linalg_inv(shifted)),
              1e-11);
  }
  EXPECT_LT(relative_error(solve_ridge(at::zeros({5, 5}), 2).vectors, at::eye(5, at::kDouble)), 1e-15);
}

TEST(Ridge, RefusesWhatItCannotInvert) {
  auto matrix = random_covariance(24, 50);
  EXPECT_EQ(error_of([&] { solve_ridge(matrix, 0); }, "positive shift"), ErrorClass::numeric);
  EXPECT_EQ(error_of([&] { solve_ridge(-matrix, 1e-3); }, "not positive definite"), ErrorClass::numeric);
  EXPECT_EQ(error_of([&] { solve_ridge(matrix.narrow(0, 0, 5), 1); }, "square"), ErrorClass::numeric);
  matrix[3][3] = std::nan("");
  EXPECT_EQ(error_of([&] { solve_ridge(matrix, 1); }, "NaN"), ErrorClass::numeric);
}

TEST_P(Eigensolver, RefusesNanAndInfinityOnEveryRank) {
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    auto matrix = random_covariance(24, 50);
    matrix[20][20] = bad;  // in the rows of the last rank
    EXPECT_EQ(error_of([&] { solve(matrix, GetParam()); }, "NaN"), ErrorClass::numeric);
  }
}

TEST_P(Eigensolver, RefusesAnAsymmetricMatrix) {
  auto matrix = random_covariance(24, 50);
  matrix[2][20] += 1e-3;
  EXPECT_EQ(error_of([&] { solve(matrix, GetParam()); }, "not symmetric"), ErrorClass::numeric);
}

TEST_P(Eigensolver, ReadsOnlyTheLowerTriangleOfANearlySymmetricMatrix) {
  const auto matrix = random_covariance(26, 50);
  const auto noise = philox_normal({3, "eigensolver_test", "noise"}, 26, 26).to(at::kDouble).triu(1) * 1e-8;
  const auto expected = std::get<0>(at::linalg_eigh(matrix)).flip(0);
  EXPECT_LT(relative_error(solve(matrix + noise, GetParam()).values, expected), 1e-13);
}

TEST(Lapack, RefusesWhatItsIntegersCannotCount) {
  // Expanded, so that no memory stands behind it.
  const auto huge = at::zeros({1, 1}, at::kDouble).expand({32767, 32767});
  EXPECT_EQ(error_of([&] { solve_lapack(huge); }, "ScaLAPACK"), ErrorClass::numeric);
}

TEST(BlockCyclic, PaddingStaysBelowARowABlock) {
  for (int ranks : {1, 2, 3, 7})
    for (int64_t n : {1, 2, 64, 65, 129, 1009, 8192}) {
      const auto layout = block_cyclic_layout(n, ranks);
      EXPECT_LE(layout.nb, 64);
      EXPECT_GE(layout.padding(), 0);
      EXPECT_LT(layout.padding(), ranks * layout.blocks + ranks) << n << " over " << ranks;
    }
}

TEST(SpreadByCost, GivesTheLargestFirstToTheLeastLoaded) {
  const std::vector<EigenTask> tasks{{"small", 10}, {"large", 30}, {"middle", 20}, {"small too", 10}};
  EXPECT_EQ(spread_by_cost(tasks, 2), (std::vector<int>{1, 0, 1, 1}));
  EXPECT_EQ(spread_by_cost(tasks, 1), (std::vector<int>{0, 0, 0, 0}));
}

TEST(SpreadByCost, StaysWithinFourThirdsOfTheBestPossible) {
  std::vector<EigenTask> tasks;
  for (int layer = 0; layer < 30; ++layer)
    for (int64_t n : {576, 576, 576, 1536}) tasks.push_back({"layer " + std::to_string(layer), n});
  for (int ranks : {1, 2, 3, 4, 16}) {
    const auto owner = spread_by_cost(tasks, ranks);
    std::vector<double> load(static_cast<size_t>(ranks), 0);
    double total = 0, largest = 0;
    for (size_t i = 0; i < tasks.size(); ++i) {
      const double cost = std::pow(static_cast<double>(tasks[i].n), 3);
      load[static_cast<size_t>(owner[i])] += cost;
      total += cost;
      largest = std::max(largest, cost);
    }
    // Graham's bound, with the larger of mean load and largest task in the place of the optimum.
    EXPECT_LE(*std::max_element(load.begin(), load.end()), 4. / 3 * std::max(total / ranks, largest))
        << ranks;
  }
}

}  // namespace
}  // namespace efface
