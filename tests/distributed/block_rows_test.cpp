#include "distributed/block_rows.hpp"

#include "distributed/philox.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::world;

at::Tensor whole_matrix(int64_t n) {
  const auto x = philox_normal({1, "block_rows_test", ""}, n, n).to(at::kDouble);
  return x + x.t();
}

BlockRows spread(const at::Tensor& whole) {
  auto matrix = make_block_rows(whole.size(0), world());
  matrix.local.copy_(whole.narrow(0, matrix.offset, matrix.rows()));
  return matrix;
}

TEST(BlockRows, StartAtZeroAndTogetherHoldEveryRow) {
  for (int64_t n : {1, 2, 7, 64}) {
    const auto matrix = make_block_rows(n, world(), at::kFloat);
    EXPECT_EQ(matrix.local.size(1), n);
    EXPECT_EQ(matrix.local.scalar_type(), at::kFloat);
    EXPECT_EQ(matrix.local.abs().sum().item<double>(), 0);
    EXPECT_EQ(world().all_reduce(matrix.rows()), n);
  }
}

TEST(BlockRows, GatherGivesTheWholeMatrixToTheRootAlone) {
  for (int64_t n : {1, 5, 13}) {
    const auto whole = whole_matrix(n);
    for (int root = 0; root < world().size(); ++root) {
      const auto gathered = gather_block_rows(spread(whole), root);
      EXPECT_EQ(gathered.defined(), world().rank() == root);
      if (gathered.defined()) {
        EXPECT_TRUE(at::equal(gathered, whole));
      }
    }
  }
}

TEST(BlockRows, TraceAndNormAreThoseOfTheWholeMatrix) {
  for (int64_t n : {1, 3, 50}) {
    const auto whole = whole_matrix(n);
    EXPECT_NEAR(trace(spread(whole)), whole.trace().item<double>(), 1e-12);
    EXPECT_NEAR(frobenius_norm(spread(whole)), whole.norm().item<double>(), 1e-12 * n);
  }
  EXPECT_EQ(frobenius_norm(make_block_rows(4, world())), 0);
}

TEST(BlockRows, NormNeitherOverflowsNorVanishes) {
  const auto whole = whole_matrix(6);
  const double norm = whole.norm().item<double>();
  for (double scale : {1e-200, 1e200})
    EXPECT_NEAR(frobenius_norm(spread(whole * scale)) / scale, norm, 1e-12 * norm);
}

}  // namespace
}  // namespace efface
