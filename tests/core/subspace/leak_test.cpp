#include "tests/core/subspace/spectra.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

constexpr int64_t kWidth = 24, kOut = 10, kTokens = 400;

// Tokens with a decaying spectrum, their second moment and its eigenpairs.
struct Tokens {
  at::Tensor x = random_matrix(kTokens, kWidth, "tokens") * geometric_spectrum(kWidth).sqrt().unsqueeze(0);
  at::Tensor c = x.t().matmul(x) / static_cast<double>(kTokens);
  at::Tensor values, vectors;
  Tokens() {
    const auto [ascending, columns] = at::linalg_eigh(c);
    values = ascending.flip(0);
    vectors = columns.flip(1);
  }
};

TEST(Leak, EqualsTheNormsOverTheTokensThemselves) {
  const Tokens t;
  const at::Tensor dw = random_matrix(kOut, kWidth, "dw"), w0 = random_matrix(kOut, kWidth, "w0");
  const Leak leak = measure_leak(dw, w0, t.c, 0.5);
  const double change = dw.matmul(t.x.t()).norm().item<double>();
  EXPECT_NEAR(leak.of_update, change / (dw.norm().item<double>() * t.x.norm().item<double>()), 1e-12);
  EXPECT_NEAR(leak.of_output, change / w0.matmul(t.x.t()).norm().item<double>(), 1e-12);
  EXPECT_NEAR(leak.bound, std::sqrt(0.5 / t.values.sum().item<double>()), 1e-12);
}

TEST(Leak, IsTheSameFromBlockRows) {
  const Tokens t;
  const at::Tensor dw = random_matrix(kOut, kWidth, "dw"), w0 = random_matrix(kOut, kWidth, "w0");
  BlockRows rows = make_block_rows(kWidth, world());
  rows.local.copy_(t.c.narrow(0, rows.offset, rows.rows()));
  const Leak whole = measure_leak(dw, w0, t.c, 0.5), blocks = measure_leak(dw, w0, rows, 0.5);
  EXPECT_NEAR(blocks.of_update, whole.of_update, 1e-12);
  EXPECT_NEAR(blocks.of_output, whole.of_output, 1e-12);
  EXPECT_NEAR(blocks.bound, whole.bound, 1e-12);
}

TEST(Leak, OfAHardProjectedUpdateIsBelowTheBoundAndOfAnUnprojectedOneIsNot) {
  const Tokens t;
  const int64_t k = choose_rank(t.values, {RankRule::Kind::energy, 0.9}, "test");
  const Projector projector(make_basis({0, Input::o}, t.values, t.vectors, k, {}), single_mesh(),
                            at::kDouble);
  const at::Tensor dw = random_matrix(kOut, kWidth, "dw"), w0 = random_matrix(kOut, kWidth, "w0");
  const double next = t.values[k].item<double>();
  const Leak projected = measure_leak(projector.apply(dw), w0, t.c, next);
  const Leak free = measure_leak(dw, w0, t.c, next);
  EXPECT_LE(projected.of_update, projected.bound);
  EXPECT_GT(free.of_update, free.bound);
}

TEST(Leak, TheWorstUpdateMeetsTheBound) {
  const Tokens t;
  const int64_t k = 9;
  const at::Tensor worst = at::outer(random_matrix(kOut, 1, "rows").flatten(), t.vectors.select(1, k));
  const Leak leak = measure_leak(worst, worst, t.c, t.values[k].item<double>());
  EXPECT_NEAR(leak.of_update, leak.bound, 1e-12);
}

// An element-wise optimiser after the projection undoes it: x = (1,1,1), g projected = (5/3, -1/3, -4/3).
TEST(Leak, AProjectedGradientLeavesTheNullSpaceThroughASignStep) {
  const at::Tensor x = at::ones({3}, at::kDouble);
  const at::Tensor vectors =
      std::get<0>(at::linalg_qr(at::cat({x.unsqueeze(1), random_matrix(3, 2, "rest")}, 1)));
  const Projector projector(
      make_basis({0, Input::o}, at::tensor({3.0, 0.0, 0.0}, at::kDouble), vectors, 1, {}), single_mesh(),
      at::kDouble);
  const at::Tensor gradient = at::tensor({2.0, 0.0, -1.0}, at::kDouble).unsqueeze(0);
  const at::Tensor projected = projector.apply(gradient);
  EXPECT_LE((projected - at::tensor({5.0, -1.0, -4.0}, at::kDouble) / 3).norm().item<double>(), 1e-6);
  EXPECT_NEAR(projected.matmul(x).item<double>(), 0, 1e-6);
  EXPECT_EQ(projected.sign().matmul(x).item<double>(), -1);
  EXPECT_NEAR(projector.apply(projected.sign()).matmul(x).item<double>(), 0, 1e-6);
}

TEST(Leak, OfTheSinkIsTheRelativeChangeOfItsOutput) {
  const at::Tensor dw = random_matrix(kOut, kWidth, "dw"), w0 = random_matrix(kOut, kWidth, "w0");
  const at::Tensor sink = random_matrix(1, kWidth, "sink").flatten();
  const double expected = dw.matmul(sink).norm().item<double>() / w0.matmul(sink).norm().item<double>();
  EXPECT_NEAR(sink_leak(dw.to(at::kFloat), w0.to(at::kFloat), sink), expected, 1e-6);
}

}  // namespace
}  // namespace efface::testing
