#include "core/subspace/eigen_stage.hpp"

#include <gmock/gmock.h>

#include "distributed/error.hpp"
#include "tests/core/subspace/spectra.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

using Solver = EigenStageOptions::Solver;

constexpr int64_t kWidth = 24;
const InputId kReplicated{0, Input::qkv}, kSharded{2, Input::down};

at::Tensor covariance_matrix(const at::Tensor& spectrum, std::string_view name = "rotation") {
  const at::Tensor u = std::get<0>(at::linalg_qr(random_matrix(kWidth, kWidth, name)));
  const at::Tensor c = (u * spectrum.unsqueeze(0)).matmul(u.t());
  return (c + c.t()) / 2;
}

BlockRows block_rows(const at::Tensor& whole, const Communicator& group) {
  BlockRows rows = make_block_rows(whole.size(0), group);
  rows.local.copy_(whole.narrow(0, rows.offset, rows.rows()));
  return rows;
}

Covariance covariance_of(const InputId& id, const Mesh& mesh, double ratio = 0.8) {
  Covariance c;
  c.id = id;
  c.tokens = 1000;
  c.heldout_tokens = 300;
  c.matrix = block_rows(covariance_matrix(geometric_spectrum(kWidth, ratio)), mesh.tensor);
  c.heldout = block_rows(covariance_matrix(geometric_spectrum(kWidth, 0.9), "heldout"), mesh.tensor);
  c.sink_mean = random_matrix(1, kWidth, "sink").flatten();
  c.top_token_share = 0.25;
  c.norm_cap = 3.5;
  return c;
}

// The widest tensor group and the widest data group of this world.
class SubspaceStage : public ::testing::TestWithParam<bool> {
 protected:
  const Mesh mesh =
      GetParam() ? make_mesh(world(), world().size(), 1) : make_mesh(world(), 1, world().size());
  TemporaryFolder folder{TemporaryFolder::Kind::shared};
  at::Tensor mine(const at::Tensor& global, const Mesh& on) const {
    const auto [begin, end] = even_range(global.size(0), on.tensor_rank(), on.tensor_size());
    return global.narrow(0, begin, end - begin);
  }
};
INSTANTIATE_TEST_SUITE_P(TensorOrData, SubspaceStage, ::testing::Bool());

TEST_P(SubspaceStage, AnInputThatIsDamagedIsAloneToBeWrittenAgain) {
  const nlohmann::json key = {{"model", "tiny"}};
  const std::vector<Covariance> whole{covariance_of(kReplicated, mesh), covariance_of(kSharded, mesh)};
  for (const Covariance& covariance : whole) {
    CovarianceWriter writer(folder.path(), mesh,
                            key);  // one part each, as of a run that was ended in between
    Covariance copy = covariance;
    copy.matrix.local = covariance.matrix.local.clone();
    writer.write(copy);
    writer.publish();
  }
  EXPECT_THROW(CovarianceStore::open(folder.path()), Error) << "taken for whole";
  EXPECT_EQ(CovarianceWriter(folder.path(), mesh, key).published().size(), 2u);
  EXPECT_TRUE(CovarianceWriter(folder.path(), mesh, {{"model", "other"}}).published().empty());
  world().barrier();
  const std::string damaged = "covariance-0-of-" + std::to_string(mesh.tensor_size()) + ".h5";
  if (world().rank() == 0) std::filesystem::resize_file(folder.path() / damaged, 1000);
  world().barrier();
  CovarianceWriter writer(folder.path(), mesh, key);
  EXPECT_EQ(writer.published(), std::vector<InputId>{kSharded});
  ASSERT_EQ(writer.notes().size(), 1u);
  EXPECT_NE(writer.notes()[0].find(damaged), std::string::npos) << writer.notes()[0];
  Covariance again = whole[0];
  again.matrix.local = whole[0].matrix.local.clone();
  writer.write(again);
  writer.finish();
  const CovarianceStore store = CovarianceStore::open(folder.path());
  for (const Covariance& covariance : whole)
    EXPECT_TRUE(at::equal(store.read(covariance.id, mesh).matrix.local,
                          covariance.matrix.local.to(at::kFloat).to(at::kDouble)));
  world().barrier();
  EXPECT_FALSE(std::filesystem::exists(folder.path() / damaged)) << "no input refers to it any more";
}

TEST_P(SubspaceStage, CovariancesAreReadBackOnAnyMesh) {
  std::vector<Covariance> written{covariance_of(kReplicated, mesh), covariance_of(kSharded, mesh)};
  written[0].heldout_tokens = 0;
  written[0].sink_mean.reset();
  CovarianceWriter writer(folder.path(), mesh, {{"model", "tiny"}});
  for (Covariance& covariance : written) writer.write(covariance);
  writer.finish();
  const CovarianceStore store = CovarianceStore::open(folder.path());
  EXPECT_EQ(store.key().at("model"), "tiny");
  EXPECT_EQ(store.inputs(), (std::vector<InputId>{kReplicated, kSharded}));
  const at::Tensor whole = mesh.tensor.all_gather_rows(written[1].matrix.local);
  EXPECT_LE(relative_error(whole, covariance_matrix(geometric_spectrum(kWidth))), 1e-7);
  for (const Mesh& reader : {mesh, single_mesh(), make_mesh(world(), 1, 0), make_mesh(world(), 0, 1)}) {
    const Covariance c = store.read(kSharded, reader);
    EXPECT_TRUE(at::equal(c.matrix.local, mine(whole, reader)));  // to the bit: written[1] was rounded too
    EXPECT_EQ(c.matrix.offset, even_range(kWidth, reader.tensor_rank(), reader.tensor_size()).first);
    EXPECT_LE(relative_error(c.heldout.local,
                             mine(covariance_matrix(geometric_spectrum(kWidth, 0.9), "heldout"), reader)),
              1e-6);
    EXPECT_TRUE(at::equal(c.sink_mean, written[1].sink_mean));
    EXPECT_EQ(c.tokens, 1000);
    EXPECT_EQ(c.heldout_tokens, 300);
    EXPECT_EQ(c.norm_cap, 3.5);
    EXPECT_EQ(c.top_token_share, 0.25);
    const Covariance bare = store.read(kReplicated, reader);
    EXPECT_EQ(bare.heldout.n, 0);
    EXPECT_FALSE(bare.sink_mean.defined());
  }
  EXPECT_THROW(store.read({1, Input::o}, mesh), Error);
}

TEST_P(SubspaceStage, BasesAreReadInSlicesThatProjectLikeTheWhole) {
  const at::Tensor u = random_rotation(kWidth), values = geometric_spectrum(kWidth);
  const Basis replicated = make_basis(kReplicated, values, u, 17, {}),
              sharded = make_basis(kSharded, values, u, 5, {});
  BasisWriter writer(folder.path(), world());
  if (world().rank() == 0) writer.write(replicated);
  if (world().rank() == world().size() - 1) writer.write(sharded);
  writer.finish();
  const BasisStore store = BasisStore::open(folder.path());
  EXPECT_EQ(store.inputs(), (std::vector<InputId>{kReplicated, kSharded}));
  for (const Basis& basis : {replicated, sharded}) {
    const Basis read = store.read(basis.id);
    EXPECT_TRUE(at::equal(read.vectors, basis.vectors));
    EXPECT_TRUE(at::equal(read.weights, basis.weights));
    EXPECT_TRUE(at::equal(read.eigenvalues, basis.eigenvalues));
    EXPECT_EQ(read.k, basis.k);
    EXPECT_EQ(read.complement, basis.complement);
    const at::Tensor d = random_matrix(3, kWidth, "d");
    const at::Tensor local = is_sharded(basis.id.input) ? mine(d.t(), mesh).t() : d;
    const Projector projector = Projector::from_slice(store.read_slice(basis.id, mesh), mesh, at::kDouble);
    EXPECT_TRUE(at::equal(projector.apply(local), Projector(basis, mesh, at::kDouble).apply(local)));
  }
}

class EigenStage : public SubspaceStage {
 protected:
  std::vector<BasisSummary> solve(const std::vector<Covariance>& covariances,
                                  const EigenStageOptions& options) {
    BasisWriter writer(folder.path(), world());
    int64_t last = 0;
    auto summaries = solve_bases(covariances, mesh, options, writer, [&](int64_t done, int64_t total) {
      EXPECT_GT(done, last);
      EXPECT_EQ(total, static_cast<int64_t>(covariances.size()));
      last = done;
    });
    EXPECT_EQ(last, static_cast<int64_t>(covariances.size()));
    writer.finish();
    return summaries;
  }
};
INSTANTIATE_TEST_SUITE_P(TensorOrData, EigenStage, ::testing::Bool());

TEST_P(EigenStage, SpreadAndTogetherGiveTheProjectorOfTheKnownEigenvectors) {
  for (Solver solver : {Solver::lapack, Solver::scalapack}) {
    std::vector<Covariance> covariances;
    for (int layer = 0; layer < 5; ++layer)
      covariances.push_back(covariance_of({layer, Input::gate_up}, mesh));
    covariances.push_back(covariance_of(kSharded, mesh));
    const auto summaries = solve(covariances, {.rank = {RankRule::Kind::energy, 0.9}, .solver = solver});
    ASSERT_EQ(summaries.size(), covariances.size());

    const at::Tensor values = geometric_spectrum(kWidth), u = random_rotation(kWidth);
    const int64_t k = choose_rank(values, {RankRule::Kind::energy, 0.9}, "");
    const at::Tensor p = at::eye(kWidth, at::kDouble) - u.narrow(1, 0, k).matmul(u.narrow(1, 0, k).t());
    const at::Tensor heldout = covariance_matrix(geometric_spectrum(kWidth, 0.9), "heldout");
    const BasisStore store = BasisStore::open(folder.path());
    for (size_t i = 0; i < summaries.size(); ++i) {
      const BasisSummary& s = summaries[i];
      EXPECT_EQ(s.id, covariances[i].id);
      EXPECT_EQ(s.k, k);
      EXPECT_LE(relative_error(dense_projector(store.read(s.id)), p), 1e-5);
      EXPECT_NEAR(s.energy, (values.narrow(0, 0, k).sum() / values.sum()).item<double>(), 1e-10);
      EXPECT_NEAR(s.residual_energy, 1 - s.energy, 1e-6);
      EXPECT_NEAR(s.heldout_residual_energy,
                  (p.matmul(heldout).diagonal().sum() / heldout.diagonal().sum()).item<double>(), 1e-6);
      EXPECT_NEAR(s.lambda_next, values[k].item<double>(), 1e-10);
      EXPECT_NEAR(s.first_share, 1 / values.sum().item<double>(), 1e-10);
      EXPECT_NEAR(s.tokens_per_dimension, 1000.0 / kWidth, 1e-12);
      EXPECT_EQ(s.top_token_share, 0.25);
      EXPECT_LE(s.residual, 1e-12);
      EXPECT_LE(s.orthogonality, 1e-12);
      EXPECT_EQ(s.spectrum.size(), static_cast<size_t>(kWidth));
      EXPECT_NEAR(s.spectrum.back(), values[kWidth - 1].item<double>(), 1e-10);
      EXPECT_TRUE(s.warnings.empty());
      EXPECT_FALSE(s.solver.empty());
    }
  }
}

TEST_P(EigenStage, ARefusedRankIsAnErrorOnEveryRankThatNamesTheInput) {
  std::vector<Covariance> covariances{covariance_of(kReplicated, mesh), covariance_of(kSharded, mesh, 0.2)};
  const EigenStageOptions options{.rank = {RankRule::Kind::threshold, 0.004}};
  BasisWriter writer(folder.path(), world());
  try {
    solve_bases(covariances, mesh, options, writer);
    ADD_FAILURE() << "0.8^23 > 0.004: nothing is left to train in";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::numeric);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("0.qkv"));
  }
}

TEST_P(EigenStage, WarnsOfOneDirectionThatHoldsEverything) {
  const auto summaries = solve({covariance_of(kSharded, mesh, 0.01)}, {});
  ASSERT_EQ(summaries.size(), 1u);
  EXPECT_EQ(summaries[0].k, 1);
  EXPECT_EQ(summaries[0].warnings.size(), 2u);
  EXPECT_EQ(to_json(summaries[0]).at("warnings").size(), 2u);
}

TEST_P(EigenStage, TheRidgeProjectorIsTheSameByCholeskyAsByEigenvectors) {
  const std::vector<Covariance> covariances{covariance_of(kReplicated, mesh),
                                            covariance_of(kSharded, mesh, 0.6)};
  EigenStageOptions options;
  options.projector.kind = ProjectorKind::ridge;
  options.solver = Solver::lapack;
  const auto by_vectors = solve(covariances, options);
  std::vector<at::Tensor> expected;
  for (const auto& s : by_vectors)
    expected.push_back(dense_projector(BasisStore::open(folder.path()).read(s.id)));
  options.solver = Solver::automatic;
  const auto by_cholesky = solve(covariances, options);
  const BasisStore store = BasisStore::open(folder.path());
  for (size_t i = 0; i < by_cholesky.size(); ++i) {
    const BasisSummary &s = by_cholesky[i], &reference = by_vectors[i];
    EXPECT_THAT(s.solver, ::testing::HasSubstr("potrf"));
    EXPECT_LE(relative_error(dense_projector(store.read(s.id)), expected[i]), 1e-6);
    EXPECT_NEAR(s.residual_energy, reference.residual_energy, 1e-6);
    EXPECT_NEAR(s.heldout_residual_energy, reference.heldout_residual_energy, 1e-6);
    EXPECT_NEAR(s.first_share, reference.first_share, 1e-4);
    EXPECT_NEAR(static_cast<double>(s.k), kWidth - expected[i].diagonal().sum().item<double>(), 0.51);
    EXPECT_LE(s.residual, 1e-12);
    EXPECT_TRUE(s.spectrum.empty());
    // Sharded as its layer is, it projects like the whole.
    const at::Tensor d = random_matrix(3, kWidth, "d");
    const at::Tensor local = is_sharded(s.id.input) ? mine(d.t(), mesh).t() : d;
    const at::Tensor whole = d.matmul(expected[i]);
    const Projector projector = Projector::from_slice(store.read_slice(s.id, mesh), mesh, at::kDouble);
    EXPECT_LE(
        relative_error(projector.apply(local), is_sharded(s.id.input) ? mine(whole.t(), mesh).t() : whole),
        1e-6);
  }
}

TEST_P(EigenStage, CholeskyIsRefusedForAProjectorThatNeedsEigenvectors) {
  BasisWriter writer(folder.path(), world());
  EXPECT_THROW(solve_bases({covariance_of(kReplicated, mesh)}, mesh, {.solver = Solver::cholesky}, writer),
               Error);
}

TEST_P(EigenStage, TheHeldOutRuleHoldsItsShareOfHeldOutEnergyWithTheFewestDirections) {
  std::vector<BasisSummary> previous;
  for (Solver solver : {Solver::lapack, Solver::scalapack}) {
    const auto summaries = solve({covariance_of(kReplicated, mesh), covariance_of(kSharded, mesh)},
                                 {.rank = {RankRule::Kind::heldout, 0.6}, .solver = solver});
    for (const auto& summary : summaries) {
      EXPECT_LE(summary.heldout_residual_energy, 0.4 + 1e-6);
      const auto fewer =
          solve({covariance_of(summary.id, mesh)},
                {.rank = {RankRule::Kind::k, static_cast<double>(summary.k - 1)}, .solver = solver});
      EXPECT_GT(fewer[0].heldout_residual_energy, 0.4);
    }
    if (!previous.empty()) {
      EXPECT_EQ(previous[0].k, summaries[0].k);
    }
    previous = summaries;
  }
}

}  // namespace
}  // namespace efface::testing
