#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include "tests/core/subspace/spectra.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

constexpr int64_t kWidth = 26, kRows = 5;

struct Case {
  Input input;
  int64_t k;
  ProjectorKind kind;
};

// All ranks are one tensor group. Everything global is the same on every rank; P is formed densely to
// compare.
class OnAMesh : public ::testing::TestWithParam<Case> {
 protected:
  const Mesh mesh = make_mesh(world(), world().size(), 1);
  const Basis basis = make_basis({0, GetParam().input}, geometric_spectrum(kWidth), random_rotation(kWidth),
                                 GetParam().k, {.kind = GetParam().kind});
  const at::Tensor p = dense_projector(basis);
  const Projector projector{basis, mesh, at::kDouble};

  bool sharded() const { return is_sharded(GetParam().input); }
  at::Tensor mine(const at::Tensor& global) const {  // the columns of this rank
    if (!sharded()) return global;
    const auto [begin, end] = even_range(kWidth, mesh.tensor_rank(), mesh.tensor_size());
    return global.narrow(1, begin, end - begin);
  }
  at::Tensor leaf(const at::Tensor& value) const { return value.clone().requires_grad_(true); }
  // What the layer behind A~ sends back on a rank: other values on every rank, for replicated inputs too.
  at::Tensor gradient_from_layer(int rank) const {
    return random_matrix(kRows, kWidth, sharded() ? "gradient" : "gradient" + std::to_string(rank));
  }
  // The trainer's share: gradients of replicated parameters are summed over the tensor group.
  at::Tensor after_the_trainers_sum(const at::Tensor& gradient) const {
    at::Tensor sum = gradient.clone();
    if (!sharded()) mesh.tensor.all_reduce(sum);
    return sum;
  }
  at::Tensor expected_gradient() const {
    at::Tensor global = gradient_from_layer(0);
    for (int rank = 1; !sharded() && rank < mesh.tensor_size(); ++rank)
      global = global + gradient_from_layer(rank);
    return mine(global.matmul(p));
  }
};
INSTANTIATE_TEST_SUITE_P(
    InputsAndKinds, OnAMesh,
    ::testing::Values(Case{Input::qkv, 7, ProjectorKind::hard}, Case{Input::qkv, 20, ProjectorKind::hard},
                      Case{Input::gate_up, 7, ProjectorKind::sgp}, Case{Input::o, 7, ProjectorKind::hard},
                      Case{Input::down, 20, ProjectorKind::hard}, Case{Input::down, 7, ProjectorKind::leak},
                      Case{Input::qkv, 0, ProjectorKind::hard},
                      Case{Input::down, kWidth, ProjectorKind::hard}));

TEST_P(OnAMesh, ApplyEqualsTheDenseProduct) {
  const at::Tensor a = random_matrix(kRows, kWidth, "a");
  const at::Tensor projected = projector.apply(mine(a));
  EXPECT_LE((projected - mine(a.matmul(p))).norm().item<double>(), 1e-12);
}

TEST_P(OnAMesh, TheAdjointIsRightAfterTheTrainersSum) {
  const at::Tensor a = leaf(mine(random_matrix(kRows, kWidth, "a")));
  const at::Tensor gradient =
      torch::autograd::grad({projector.apply(a)}, {a}, {mine(gradient_from_layer(mesh.tensor_rank()))})[0];
  EXPECT_LE((after_the_trainers_sum(gradient) - expected_gradient()).norm().item<double>(), 1e-12);
}

TEST_P(OnAMesh, ProjectingRowsThatDifferByRankNeedsNoSum) {
  const at::Tensor rows =
      random_matrix(kRows, kWidth, "rows" + std::to_string(sharded() ? 0 : world().rank()));
  EXPECT_LE((projector.apply_to_sharded_rows(mine(rows)) - mine(rows.matmul(p))).norm().item<double>(),
            1e-12);
}

TEST(Projector, AllModulesOfAStepTakeOneAllReduceEachWay) {
  const Mesh mesh = make_mesh(world(), world().size(), 1);
  const at::Tensor u = random_rotation(kWidth);
  const Projector replicated(make_basis({0, Input::qkv}, geometric_spectrum(kWidth), u, 7, {}), mesh,
                             at::kDouble);
  const Projector sharded(make_basis({0, Input::down}, geometric_spectrum(kWidth), u, 20, {}), mesh,
                          at::kDouble);
  const Projector identity;
  const auto [begin, end] = even_range(kWidth, mesh.tensor_rank(), mesh.tensor_size());
  const auto inputs = [&, begin = begin, end = end] {
    std::vector<at::Tensor> a{random_matrix(3, kWidth, "x"), random_matrix(4, kWidth, "y"),
                              random_matrix(2, kWidth, "z").narrow(1, begin, end - begin)};
    for (auto& tensor : a) tensor = tensor.clone().requires_grad_(true);
    return a;
  };
  const auto loss = [](const std::vector<at::Tensor>& a) {
    return a[0].pow(3).sum() + a[1].pow(2).sum() + a[2].pow(3).sum();
  };

  const std::vector<at::Tensor> one_by_one = inputs(), together = inputs();
  const auto separate = torch::autograd::grad(
      {loss({replicated.apply(one_by_one[0]), identity.apply(one_by_one[1]), sharded.apply(one_by_one[2])})},
      one_by_one);
  const auto calls = [&] {
    const auto& traffic = mesh.tensor.traffic();
    const auto found = traffic.find("all_reduce");
    return found == traffic.end() ? 0 : found->second.calls;
  };
  const int64_t before = calls();
  const auto projected = Projector::apply_all({&replicated, &identity, &sharded}, together);
  const auto flat = torch::autograd::grad({loss(projected)}, together);
  EXPECT_LE(calls() - before, 2);
  for (size_t i = 0; i < flat.size(); ++i) EXPECT_LE(relative_error(flat[i], separate[i]), 1e-12);
}

TEST(Projector, KeepsTheDtypeOfWhatItProjects) {
  const Projector projector(
      make_basis({0, Input::o}, geometric_spectrum(kWidth), random_rotation(kWidth), 7, {}), single_mesh());
  EXPECT_EQ(projector.apply(random_matrix(2, kWidth, "a").to(at::kBFloat16)).scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace efface::testing
