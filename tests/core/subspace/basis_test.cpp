#include "distributed/error.hpp"
#include "tests/core/subspace/spectra.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

constexpr int64_t kWidth = 24;
const InputId kInput{0, Input::qkv};

Basis basis_of(int64_t k, ProjectorKind kind, const at::Tensor& sink = {}) {
  ProjectorOptions options;
  options.kind = kind;
  options.protect_sink = sink.defined();
  return make_basis(kInput, geometric_spectrum(kWidth), random_rotation(kWidth), k, options, sink);
}

class HardBasis : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(ThinnerAndThickerThanHalf, HardBasis, ::testing::Values(0, 1, 7, 12, 13, 20, 24));

TEST_P(HardBasis, IsAnOrthogonalProjectorThatNullsTheRetainSubspace) {
  const int64_t k = GetParam();
  const Basis basis = basis_of(k, ProjectorKind::hard);
  const at::Tensor p = dense_projector(basis);
  EXPECT_LE((p.matmul(p) - p).norm().item<double>(), 1e-6);
  EXPECT_LE((p - p.t()).norm().item<double>(), 1e-12);
  EXPECT_LE(p.matmul(random_rotation(kWidth).narrow(1, 0, k)).norm().item<double>(), 1e-6);
  EXPECT_NEAR(p.diagonal().sum().item<double>(), static_cast<double>(kWidth - k), 1e-5);
  EXPECT_EQ(basis.complement, 2 * k > kWidth);
  EXPECT_LE(basis.vectors.size(1), kWidth / 2);  // the thinner of the two
}

TEST_P(HardBasis, ProtectsTheSinkInputAsOneMoreDirection) {
  const int64_t k = GetParam();
  if (k == kWidth) GTEST_SKIP() << "nothing is left to protect from";
  const at::Tensor sink = random_matrix(1, kWidth, "sink").flatten();
  const at::Tensor p = dense_projector(basis_of(k, ProjectorKind::hard, sink));
  EXPECT_LE(p.matmul(sink).norm().item<double>(), 1e-6 * sink.norm().item<double>());
  EXPECT_LE(p.matmul(random_rotation(kWidth).narrow(1, 0, k)).norm().item<double>(), 1e-6);
  EXPECT_LE((p.matmul(p) - p).norm().item<double>(), 1e-6);
  EXPECT_NEAR(p.diagonal().sum().item<double>(), static_cast<double>(kWidth - k - 1), 1e-5);
}

TEST_P(HardBasis, ReadsTheVectorsItAsksForAlone) {
  const int64_t k = GetParam();
  for (const at::Tensor& sink : {at::Tensor(), random_matrix(1, kWidth, "sink").flatten()}) {
    ProjectorOptions options;
    options.protect_sink = sink.defined();
    const auto [begin, end] = basis_vectors(options, kWidth, k);
    const Basis basis = make_basis(kInput, geometric_spectrum(kWidth),
                                   random_rotation(kWidth).narrow(1, begin, end - begin), k, options, sink);
    EXPECT_TRUE(at::equal(basis.vectors, basis_of(k, ProjectorKind::hard, sink).vectors));
  }
}

TEST(Basis, ASinkInsideTheRetainSubspaceTakesNoDirection) {
  const at::Tensor sink = random_rotation(kWidth).narrow(1, 0, 5).sum(1);
  EXPECT_EQ(basis_of(5, ProjectorKind::hard, sink).vectors.size(1), 5);
}

TEST(Basis, ALeakLetsItsShareOfTheRetainSubspaceThrough) {
  ProjectorOptions options;
  options.kind = ProjectorKind::leak;
  options.leak = 0.25;
  const at::Tensor u = random_rotation(kWidth);
  const at::Tensor p = dense_projector(make_basis(kInput, geometric_spectrum(kWidth), u, 9, options));
  EXPECT_LE(relative_error(p.matmul(u.narrow(1, 0, 9)), 0.25 * u.narrow(1, 0, 9)), 1e-5);
  EXPECT_LE(relative_error(p.matmul(u.narrow(1, 9, 15)), u.narrow(1, 9, 15)), 1e-5);
}

TEST(Basis, SgpWeightsStayInTheUnitIntervalAndReachOneAtTheMean) {
  const at::Tensor values = geometric_spectrum(kWidth);
  const at::Tensor w = basis_of(5, ProjectorKind::sgp).weights.to(at::kDouble);
  EXPECT_GE(w.min().item<double>(), 0);
  EXPECT_LE(w.max().item<double>(), 1);
  const double mean = values.mean().item<double>();
  for (int64_t i = 0; i < w.numel(); ++i) {
    const double l = values[i].item<double>();
    EXPECT_NEAR(w[i].item<double>(), l >= mean ? 1 : 11 * l / (10 * l + mean), 1e-6);
  }
}

TEST(Basis, RidgeIsTheShiftedInverse) {
  const at::Tensor u = random_rotation(kWidth), values = geometric_spectrum(kWidth);
  const at::Tensor c = (u * values.unsqueeze(0)).matmul(u.t());
  const double tau = values.mean().item<double>();
  const at::Tensor inverse = tau * at::linalg_inv(c + tau * at::eye(kWidth, at::kDouble));
  EXPECT_LE(relative_error(dense_projector(basis_of(5, ProjectorKind::ridge)), inverse), 1e-6);
}

TEST(Basis, RelaxedProjectorsRefuseASinkTheyCannotProtect) {
  const at::Tensor sink = at::ones({kWidth}, at::kDouble);
  EXPECT_THROW(basis_of(5, ProjectorKind::sgp, sink), Error);
  EXPECT_THROW(basis_of(5, ProjectorKind::ridge, sink), Error);
}

}  // namespace
}  // namespace efface::testing
