// One step on one rank equals the same step on every tensor x data mesh, and so do five, within the rounding
// that Adam's sign-like first step amplifies.
#include <gtest/gtest.h>

#include <limits>

#include "core/unlearn/parameters.hpp"
#include "distributed/error.hpp"
#include "tests/core/unlearn/tiny.hpp"

namespace efface {
namespace {

using testing::TinyOptions;
using testing::TinyRun;

struct Tolerance {
  at::ScalarType dtype;
  double first_step, losses, updates;
};
const Tolerance kTolerances[] = {{at::kFloat, 1e-4, 1e-4, 1e-2}, {at::kDouble, 1e-8, 1e-8, 1e-8}};

TinyOptions options_for(const std::string& method, at::ScalarType dtype) {
  TinyOptions options;
  options.method = method;
  options.dtype = dtype;
  options.train = testing::tiny_train_options();
  options.train.replica_check_every = 1;
  if (method == "NSRU") options.args = {{"retain_kl_weight", 1}};
  return options;
}

double worst_error(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  double worst = 0, scale = 0;
  for (const auto& entry : b) scale = std::max(scale, entry.second.norm().item<double>());
  // A gradient that is 0 by its formula (A's while B = 0) is compared with the largest one.
  for (const auto& [name, gradient] : b)
    worst = std::max(worst, (a.at(name) - gradient).norm().item<double>() /
                                std::max(gradient.norm().item<double>(), 1e-3 * scale));
  return worst;
}

class EveryMesh : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryMesh, GivesTheStepsOfOneRank) {
  for (const auto& [dtype, first_step, losses, updates] : kTolerances) {
    const testing::TemporaryFolder folder;
    const auto options = options_for(GetParam(), dtype);
    TinyRun alone(single_mesh(), options,
                  folder.path() / ("alone." + std::to_string(testing::world().rank())));
    std::vector<StepReport> expected = {alone.trainer->step()};
    const auto expected_gradients = alone.trainer->global_gradients();
    for (int step = 1; step < 5; ++step) expected.push_back(alone.trainer->step());

    for (const auto& [tensor, data] : testing::mesh_shapes()) {
      const std::string name = GetParam() + " " + std::to_string(tensor) + "x" + std::to_string(data);
      const Mesh mesh = make_mesh(testing::world(), tensor, data);
      TinyRun run(mesh, options, folder.path() / name);
      for (int step = 0; step < 5; ++step) {
        const auto report = run.trainer->step();
        const double bound = (step == 0 ? first_step : losses) * std::max(1.0, std::abs(expected[step].loss));
        EXPECT_NEAR(report.loss, expected[step].loss, bound) << name << " step " << step;
        for (const auto& [part, value] : expected[step].parts)
          EXPECT_NEAR(report.parts.at(part), value, bound) << name << " " << part;
        EXPECT_EQ(report.tokens, expected[step].tokens) << name;
        if (step > 0) continue;
        EXPECT_NEAR(report.grad_norm, expected[0].grad_norm, first_step * expected[0].grad_norm) << name;
        EXPECT_LT(worst_error(run.trainer->global_gradients(), expected_gradients), first_step) << name;
      }
      for (const ModuleId& module : alone.trainer->trained())
        EXPECT_LT(
            testing::relative_error(run.trainer->global_update(module), alone.trainer->global_update(module)),
            updates)
            << name << " " << module_name(module);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryMesh,
                         ::testing::Values("NSRU", "KUDA", "RMU", "GradDiff", "NPO", "SimNPO", "IdkDPO",
                                           "FineTune"),
                         [](const auto& info) { return info.param; });

TEST(EveryMesh, GradientsOfAllSevenLinearsMatchUnderTheProjection) {
  // Both factors moved off zero, so that A's gradient is not 0, and every kind of shard is in play.
  const testing::TemporaryFolder folder;
  auto options = options_for("NSRU", at::kDouble);
  const auto prepare = [](Trainer& trainer) {
    std::map<ModuleId, std::pair<at::Tensor, at::Tensor>> adapters;
    for (const auto& [module, factors] : trainer.global_adapters()) {
      const auto draw = [&, id = module](const char* purpose, const at::Tensor& like) {
        return philox_normal({5, purpose, module_name(id)}, like.size(0), like.size(1)).to(like.dtype()) *
               0.1;
      };
      adapters[module] = {draw("a", factors.first), draw("b", factors.second)};
    }
    trainer.set_adapters(adapters);
  };
  TinyRun alone(single_mesh(), options, folder.path() / ("alone." + std::to_string(testing::world().rank())));
  prepare(*alone.trainer);
  const double norm = alone.trainer->step().grad_norm;
  const auto expected = alone.trainer->global_gradients();
  for (const auto& [tensor, data] : testing::mesh_shapes()) {
    TinyRun run(make_mesh(testing::world(), tensor, data), options, folder.path() / std::to_string(tensor));
    prepare(*run.trainer);
    EXPECT_NEAR(run.trainer->step().grad_norm, norm, 1e-8 * norm);
    const auto gradients = run.trainer->global_gradients();
    ASSERT_EQ(gradients.size(), 4u * 7 * 2);
    for (const auto& [name, gradient] : expected) {
      EXPECT_GT(gradient.norm().item<double>(), 0) << name;
      EXPECT_LT(testing::relative_error(gradients.at(name), gradient), 1e-8)
          << name << " on " << tensor << "x" << data;
    }
  }
}

TEST(EveryMesh, GradientIsThatOfFiniteDifferences) {
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 0, 1);
  auto options = options_for("NSRU", at::kDouble);
  options.args = {{"suppression_weight", 0}, {"retain_kl_weight", 1}};  // no role whose wording is drawn anew
  options.train.learning_rate = 0;
  TinyRun run(mesh, options, folder.path() / "references");
  const ModuleId module{2, Projection::down};
  const auto [a, b] = run.trainer->global_adapters().at(module);
  const auto b1 = philox_normal({5, "b", ""}, b.size(0), b.size(1)).to(at::kDouble) * 0.1;
  const auto direction = philox_normal({5, "direction", ""}, a.size(0), a.size(1)).to(at::kDouble);
  run.trainer->set_adapters({{module, {a, b1}}});
  run.trainer->step();
  const auto gradient = run.trainer->global_gradients().at(module_name(module) + ".lora_a");
  const auto loss_at = [&](double t) {
    run.trainer->set_adapters({{module, {a + direction * t, b1}}});
    return run.trainer->step().loss;
  };
  // Steps 1 and 2 draw the same five records in another order: the same loss.
  const double slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
  EXPECT_NEAR((gradient * direction).sum().item<double>(), slope, 1e-5 * std::abs(slope) + 1e-8);
}

TEST(EveryMesh, OneDriftedBitIsNoticed) {
  EFFACE_NEEDS_RANKS(testing::world().size() > 1);
  auto copies = at::ones({1000});
  EXPECT_NO_THROW(check_same_bits(copies, testing::world(), "copies"));
  if (testing::world().rank() == 1) copies[500] = 1 + 1e-7;
  EXPECT_THROW(check_same_bits(copies, testing::world(), "copies"), Error);
  auto swapped = at::arange(4, at::kDouble);
  if (testing::world().rank() == 1) swapped = swapped.flip(0);
  EXPECT_THROW(check_same_bits(swapped, testing::world(), "copies"), Error);
}

TEST(EveryMesh, ReplicasAreComparedAfterTheFirstStepAndTheLastOfAShortRun) {
  EFFACE_NEEDS_RANKS(testing::world().size() > 1);
  const testing::TemporaryFolder folder;
  auto options = options_for("GradAscent", at::kFloat);
  options.train.replica_check_every = 100;
  options.train.steps = 3;
  const auto drift = [](Trainer& trainer) {
    auto adapters = trainer.global_adapters();
    auto& [module, factors] = *adapters.begin();
    if (testing::world().rank() == 1) factors.first = factors.first * 1.5;
    trainer.set_adapters({{module, factors}});
  };
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  TinyRun early(mesh, options, folder.path() / "early");
  drift(*early.trainer);
  EXPECT_THROW(early.trainer->step(), Error);

  TinyRun late(mesh, options, folder.path() / "late");
  EXPECT_NO_THROW(late.trainer->step());
  drift(*late.trainer);
  EXPECT_NO_THROW(late.trainer->step()) << "not due";
  EXPECT_THROW(late.trainer->step(), Error);
}

TEST(EveryMesh, ARankWithoutRowsStillJoins) {
  const testing::TemporaryFolder folder;
  auto options = options_for("GradAscent", at::kDouble);
  options.train.rows_per_step = {{RowRole::forget, 1}};
  TinyRun alone(single_mesh(), options, folder.path() / ("alone." + std::to_string(testing::world().rank())));
  TinyRun run(make_mesh(testing::world(), 1, 0), options, folder.path() / "all");
  for (int step = 0; step < 2; ++step) {
    const auto a = alone.trainer->step(), b = run.trainer->step();
    EXPECT_NEAR(a.loss, b.loss, 1e-9 * std::abs(a.loss));
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-9 * a.grad_norm);
  }
}

TEST(EveryMesh, ANaNStopsEveryRankNamesTheRowsAndLeavesTheParameters) {
  const testing::TemporaryFolder folder;
  TinyRun run(make_mesh(testing::world(), 1, 0), options_for("NSRU", at::kFloat),
              folder.path() / "references");
  const auto batch = run.trainer->batch(0);
  const ModuleId module{1, Projection::o};
  const auto before = run.trainer->global_update(module);
  if (testing::world().rank() == testing::world().size() - 1)
    run.model.weight("model.norm.weight").local.fill_(std::numeric_limits<float>::quiet_NaN());
  try {
    run.trainer->step();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::numeric);
    char id[17];
    if (testing::world().rank() == testing::world().size() - 1) {
      std::snprintf(id, sizeof(id), "%016llx",
                    static_cast<unsigned long long>(batch.rows.front().tokens.row_id()));
      EXPECT_NE(std::string(error.what()).find(id), std::string::npos) << error.what();
    }
  }
  EXPECT_TRUE(at::equal(run.trainer->global_update(module), before));
  EXPECT_EQ(run.trainer->steps_done(), 0);
}

}  // namespace
}  // namespace efface
