// What the projection promises about the retained tokens, after the optimiser has had its say.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/core/unlearn/tiny.hpp"

namespace efface {
namespace {

constexpr double kEnergy = 0.97;

/// The second moment of every module's input over the retain rows, by the model's own taps, and what it says.
struct RetainSubspace {
  std::map<InputId, at::Tensor> covariance;  // [n, n] fp64
  std::map<InputId, Basis> bases;

  explicit RetainSubspace(const Transformer& model) {
    const at::NoGradGuard no_grad;
    std::vector<TokenRow> rows;
    for (uint64_t seed = 900; seed < 910; ++seed) rows.push_back(testing::random_row(seed, 10, 2, 96));
    Taps taps;
    taps.on_input = [&](const InputId& id, const at::Tensor& x) {
      covariance[id] = at::mm(x.t(), x).to(at::kDouble) / x.size(0);
    };
    model.forward(make_batch(rows), &taps);
    for (const auto& [id, c] : covariance) {
      const auto [ascending, vectors] = at::linalg_eigh(c);
      const auto values = ascending.flip(0).clamp_min(0);
      const int64_t k = choose_rank(values, {RankRule::Kind::energy, kEnergy}, input_name(id));
      bases.emplace(id, make_basis(id, values, vectors.flip(1), k, {}));
    }
  }

  Leak leak(const Trainer& trainer, const Transformer& frozen, const ModuleId& module) const {
    const InputId id = input_of(module);
    const Basis& basis = bases.at(id);
    return measure_leak(trainer.global_update(module), frozen.weight(module).local, covariance.at(id),
                        basis.eigenvalues[basis.k].item<double>());
  }
};

struct Outcome {
  int over = 0, modules = 0;
  double worst = 0;  // of_update / bound
};

Outcome train(const std::string& method, ProjectionPoint point, const Mesh& mesh,
              const RetainSubspace& retain, const Transformer& frozen, const std::filesystem::path& folder) {
  testing::TinyOptions options;
  options.method = method;
  options.project = false;
  options.train = testing::tiny_train_options();
  options.train.projection = point;
  options.train.learning_rate = 5e-3;
  options.train.initial_noise = 1e-4;  // projected: much of it would hide what the steps do
  testing::TinyRun run(mesh, options, folder);
  std::map<InputId, Projector> projectors;
  for (const auto& [id, basis] : retain.bases) projectors.emplace(id, Projector(basis, mesh));
  const auto trained = run.trainer->trained();
  auto model = Transformer::random(testing::tiny_config(), mesh, options.model_seed);
  run.method->prepare(model);
  LoraOptions lora;
  lora.r = 4;
  Trainer trainer(model, *run.method, run.pool, run.references, projectors, options.train, lora, trained);
  for (int step = 0; step < 5; ++step) trainer.step();
  Outcome outcome;
  for (const ModuleId& module : trained) {
    const Leak leak = retain.leak(trainer, frozen, module);
    EXPECT_GT(trainer.global_update(module).norm().item<double>(), 0);
    outcome.modules += 1;
    outcome.over += leak.of_update > leak.bound * (1 + 1e-4) ? 1 : 0;
    outcome.worst = std::max(outcome.worst, leak.of_update / leak.bound);
  }
  return outcome;
}

class ProjectedSteps : public ::testing::TestWithParam<std::string> {};

TEST_P(ProjectedSteps, AfterTheOptimiserKeepsTheBoundAndOfTheGradientAloneBreaksIt) {
  const testing::TemporaryFolder folder;
  const auto frozen = Transformer::random(testing::tiny_config(), single_mesh(), 3);
  const RetainSubspace retain(frozen);
  for (const auto& [tensor, data] : testing::mesh_shapes()) {
    const Mesh mesh = make_mesh(testing::world(), tensor, data);
    const auto outcome = [&](ProjectionPoint point) {
      return train(GetParam(), point, mesh, retain, frozen, folder.path() / std::to_string(tensor));
    };
    const auto update = outcome(ProjectionPoint::update);
    EXPECT_EQ(update.over, 0) << "worst: " << update.worst << " of the bound";
    const auto gradient = outcome(ProjectionPoint::gradient), none = outcome(ProjectionPoint::none);
    EXPECT_GT(gradient.over, gradient.modules / 2) << "worst: " << gradient.worst << " of the bound";
    EXPECT_EQ(none.over, none.modules);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, ProjectedSteps, ::testing::Values("NSRU", "KUDA", "RMU"),
                         [](const auto& info) { return info.param; });

TEST(ProjectedStep, ARelaxedProjectorActsOnEachIncrementOnce) {
  // P = I - (1 - leak) U U^T: after n equal increments D, dW = n D P. Projecting the sum would give powers of
  // P.
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  testing::TinyOptions options;
  options.method = "RMU";
  options.project = false;
  options.train = testing::tiny_train_options();
  options.train.initial_noise = 0;
  testing::TinyRun plain(mesh, options, folder.path() / "references");
  const ModuleId module{1, Projection::down};
  const int64_t n = plain.model.config().intermediate_size;
  const auto vectors = std::get<0>(at::linalg_qr(philox_normal({7, "basis", ""}, n, n).to(at::kDouble)));
  ProjectorOptions relaxed;
  relaxed.kind = ProjectorKind::leak;
  relaxed.leak = 0.5;
  const auto basis =
      make_basis(input_of(module), at::linspace(2, 1, n, at::kDouble), vectors, n / 3, relaxed);
  auto model = Transformer::random(testing::tiny_config(), mesh, options.model_seed);
  Trainer trainer(model, *plain.method, plain.pool, plain.references,
                  {{input_of(module), Projector(basis, mesh)}}, options.train, {}, {module});
  const auto p =
      at::eye(n, at::kDouble) - at::mm(vectors.narrow(1, 0, n / 3), vectors.narrow(1, 0, n / 3).t()) * 0.5;
  // Adam's directions, redone here from the gradients the trainer saw.
  auto m = at::zeros({plain.model.config().hidden_size, n}, at::kDouble), v = at::zeros_like(m),
       sum = at::zeros_like(m);
  for (int step = 0; step < 4; ++step) {
    trainer.step();
    const auto g = trainer.global_gradients().at(module_name(module) + ".update").to(at::kDouble);
    m = m * 0.9 + g * 0.1;
    v = v * 0.999 + g * g * 0.001;
    sum -= (m / (1 - std::pow(0.9, step + 1))) / ((v / (1 - std::pow(0.999, step + 1))).sqrt() + 1e-8) * 1e-3;
  }
  EXPECT_LT(testing::relative_error(trainer.global_update(module), at::mm(sum, p)), 1e-4);
}

}  // namespace
}  // namespace efface
