// What is on disk: references by row, and training state that any mesh reads.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "core/unlearn/training_state.hpp"
#include "distributed/error.hpp"
#include "tests/core/unlearn/tiny.hpp"

namespace efface {
namespace {

using testing::TinyOptions;
using testing::TinyRun;

TinyOptions options_for(const std::string& method) {
  TinyOptions options;
  options.method = method;
  options.train = testing::tiny_train_options();
  if (method == "NSRU") options.args = {{"retain_kl_weight", 1}};
  return options;
}

std::map<ModuleId, at::Tensor> updates(const Trainer& trainer) {
  std::map<ModuleId, at::Tensor> result;
  for (const ModuleId& module : trainer.trained()) result[module] = trainer.global_update(module);
  return result;
}

std::vector<double> losses(Trainer& trainer, int steps) {
  std::vector<double> result;
  for (int step = 0; step < steps; ++step) result.push_back(trainer.step().loss);
  return result;
}

TEST(TrainingState, ResumesWithTheSameBitsOnTheSameMesh) {
  const testing::TemporaryFolder folder;
  for (const char* method : {"NSRU", "KUDA"})
    for (const auto& [tensor, data] : testing::mesh_shapes()) {
      const Mesh mesh = make_mesh(testing::world(), tensor, data);
      const auto name = folder.path() / (method + std::to_string(tensor));
      TinyRun whole(mesh, options_for(method), name);
      losses(*whole.trainer, 2);
      whole.trainer->save(name / "state");
      whole.trainer->save(name / "state");  // over an older one
      const auto expected = losses(*whole.trainer, 3);

      TinyRun resumed(mesh, options_for(method), name);
      ASSERT_TRUE(resumed.trainer->restore(name / "state"));
      EXPECT_EQ(resumed.trainer->steps_done(), 2);
      EXPECT_EQ(losses(*resumed.trainer, 3), expected) << method << " " << tensor << "x" << data;
      const auto a = updates(*whole.trainer), b = updates(*resumed.trainer);
      for (const auto& [module, update] : a)
        EXPECT_TRUE(at::equal(update, b.at(module))) << module_name(module);
    }
}

TEST(TrainingState, AnyMeshResumesWhatAnotherWrote) {
  const testing::TemporaryFolder folder;
  for (const char* method : {"NSRU", "KUDA"})
    for (const auto& [tensor, data] : testing::mesh_shapes())
      for (const auto& [tensor2, data2] : testing::mesh_shapes()) {
        const auto name = folder.path() / (method + std::to_string(tensor) + std::to_string(tensor2));
        TinyRun writer(make_mesh(testing::world(), tensor, data), options_for(method), name / "a");
        losses(*writer.trainer, 2);
        writer.trainer->save(name / "state");
        TinyRun reader(make_mesh(testing::world(), tensor2, data2), options_for(method), name / "b");
        ASSERT_TRUE(reader.trainer->restore(name / "state"));
        const auto at_rest = updates(*writer.trainer), read = updates(*reader.trainer);
        // A's and dW's bits are the file's; A P and B A~ are products over another mesh.
        for (const auto& [module, update] : at_rest)
          EXPECT_LT(testing::relative_error(read.at(module), update), 1e-5) << method << module_name(module);
        const auto expected = losses(*writer.trainer, 3), got = losses(*reader.trainer, 3);
        for (int step = 0; step < 3; ++step)
          EXPECT_NEAR(got[step], expected[step], 1e-3 * std::abs(expected[step])) << method;
        const auto a = updates(*writer.trainer), b = updates(*reader.trainer);
        for (const auto& [module, update] : a)
          EXPECT_LT(testing::relative_error(b.at(module), update), 2e-2) << method << module_name(module);
      }
}

TEST(TrainingState, NothingIsRestoredFromNothingOrFromWhatWasNotPublished) {
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  TinyRun run(mesh, options_for("NSRU"), folder.path() / "references");
  const auto state = folder.path() / "state";
  EXPECT_FALSE(run.trainer->restore(state));
  run.trainer->step();
  CheckpointWriter writer(state, mesh, 1);
  writer.begin(run.trainer->snapshot());
  EXPECT_TRUE(writer.pending());
  EXPECT_FALSE(run.trainer->restore(state)) << "killed before it was published";
  writer.publish();
  EXPECT_FALSE(writer.pending());
  EXPECT_TRUE(run.trainer->restore(state));
}

TEST(TrainingState, ASnapshotIsOfItsStepThoughTrainingGoesOnWhileItIsWritten) {
  const testing::TemporaryFolder folder;
  for (const auto& [tensor, data] : testing::mesh_shapes()) {
    const Mesh mesh = make_mesh(testing::world(), tensor, data);
    const auto name = folder.path() / std::to_string(tensor);
    TinyRun run(mesh, options_for("NSRU"), name);
    losses(*run.trainer, 2);
    const auto expected = updates(*run.trainer);
    CheckpointWriter writer(name / "state", mesh, 1);
    writer.begin(run.trainer->snapshot());
    losses(*run.trainer, 2);
    writer.publish();
    TinyRun resumed(mesh, options_for("NSRU"), name);
    const auto restored = resumed.trainer->restore(name / "state");
    ASSERT_TRUE(restored);
    EXPECT_EQ(resumed.trainer->steps_done(), 2);
    const auto read = updates(*resumed.trainer);
    for (const auto& [module, update] : expected)
      EXPECT_TRUE(at::equal(read.at(module), update)) << module_name(module);
  }
}

TEST(TrainingState, TheNewestAreKeptAndADamagedOneIsNamedAndTheOneBeforeUsed) {
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  TinyRun run(mesh, options_for("NSRU"), folder.path() / "references");
  const auto state = folder.path() / "state";
  CheckpointWriter writer(state, mesh, 2);
  for (int step = 0; step < 3; ++step) {
    run.trainer->step();
    writer.begin(run.trainer->snapshot());
    writer.publish();
  }
  testing::world().barrier();
  EXPECT_FALSE(std::filesystem::exists(state / "step-00000001"));
  const auto file = state / "step-00000003/state.rank0.h5";
  testing::world().barrier();
  if (mesh.is_root()) {
    const auto size = static_cast<int64_t>(std::filesystem::file_size(file));
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(size / 2).write(std::string(static_cast<size_t>(size / 4), '\0').data(), size / 4);
  }
  testing::world().barrier();
  const auto restored = run.trainer->restore(state);
  ASSERT_TRUE(restored);
  EXPECT_EQ(run.trainer->steps_done(), 2);
  ASSERT_EQ(restored.damaged.size(), 1u);
  EXPECT_NE(restored.damaged[0].find("step-00000003"), std::string::npos) << restored.damaged[0];
  testing::world().barrier();
  EXPECT_FALSE(std::filesystem::exists(state / "step-00000003"));
}

TEST(TrainingState, AStepThatIsNotFiniteIsSkippedAndCountedOrNamesItsRows) {
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  for (const bool skip : {false, true}) {
    TinyOptions options = options_for("NSRU");
    options.train.skip_nonfinite = skip;
    TinyRun run(mesh, options, folder.path() / "references");
    run.trainer->step();
    const auto good = run.trainer->global_adapters();
    auto bad = good;
    at::Tensor& a = bad.begin()->second.first;
    a = at::full_like(a, std::numeric_limits<float>::infinity());
    run.trainer->set_adapters(bad);
    if (!skip) {
      try {
        run.trainer->step();
        ADD_FAILURE() << "it went on";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorClass::numeric);
        EXPECT_NE(std::string(error.what()).find("not a finite number; rows "), std::string::npos);
      }
      continue;
    }
    const StepReport report = run.trainer->step();
    EXPECT_NE(report.skipped, "");
    EXPECT_EQ(run.trainer->steps_skipped(), 1);
    run.trainer->set_adapters(good);
    EXPECT_TRUE(std::isfinite(run.trainer->step().loss));
    run.trainer->save(folder.path() / "state");
    TinyRun resumed(mesh, options, folder.path() / "references");
    ASSERT_TRUE(resumed.trainer->restore(folder.path() / "state"));
    EXPECT_EQ(resumed.trainer->steps_skipped(), 1);
    run.trainer->set_adapters(bad);
    EXPECT_THROW(losses(*run.trainer, 10), Error) << "ten in a row";
  }
}

TEST(TrainingState, AnotherMethodsStateIsRefused) {
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  TinyRun nsru(mesh, options_for("NSRU"), folder.path() / "references");
  nsru.trainer->save(folder.path() / "state");
  TinyRun npo(mesh, options_for("NPO"), folder.path() / "references");
  EXPECT_THROW(npo.trainer->restore(folder.path() / "state"), Error);
}

TEST(References, AreTheFrozenModelsValuesRowByRow) {
  const testing::TemporaryFolder folder;
  for (const auto& [tensor, data] : testing::mesh_shapes()) {
    const Mesh mesh = make_mesh(testing::world(), tensor, data);
    const auto model = Transformer::random(testing::tiny_config(), mesh, 3);
    std::vector<TokenRow> rows;
    for (uint64_t seed = 0; seed < 7; ++seed)
      rows.push_back(testing::random_row(seed, 2 + static_cast<int64_t>(seed), 3, 96));
    ReferenceNeeds needs;
    needs.log_probability = needs.label_hidden = needs.below_window = needs.representation = true;
    needs.window_begin = 1;
    needs.window_end = 3;
    const auto cache = ReferenceCache::build(folder.path() / std::to_string(tensor), model, rows, needs);
    const at::NoGradGuard no_grad;
    for (const TokenRow& row : rows) {
      const auto batch = make_batch({row});
      const auto label_hidden = model.forward(batch).index_select(0, batch.label_positions);
      const auto close = [](const at::Tensor& a, const at::Tensor& b) {
        return testing::relative_error(a, b) < 1e-5;
      };
      EXPECT_TRUE(close(cache.label_hidden(row.row_id()), label_hidden));
      EXPECT_NEAR(cache.log_probability(row.row_id()),
                  model.token_log_probabilities(label_hidden, batch.label_ids).sum().item<double>(), 1e-4);
      const auto below = model.run_layers(model.embed(batch), batch, 0, 1);
      EXPECT_TRUE(close(cache.below_window(row.row_id(), 1), below));
      EXPECT_TRUE(close(cache.representation(row.row_id(), 3), model.run_layers(below, batch, 1, 3)));
    }
  }
}

TEST(References, OnlyWhatIsMissingIsComputedAndOldValuesAreReadBack) {
  const testing::TemporaryFolder folder;
  const Mesh mesh = make_mesh(testing::world(), 1, 0);
  const auto model = Transformer::random(testing::tiny_config(), mesh, 3);
  const auto other = Transformer::random(testing::tiny_config(), mesh, 4);
  const TokenRow first = testing::random_row(1, 4, 3, 96), second = testing::random_row(2, 4, 3, 96);
  ReferenceNeeds needs;
  needs.log_probability = true;
  const double value =
      ReferenceCache::build(folder.path(), model, {first}, needs).log_probability(first.row_id());
  // Were the first row computed again, the other model's value would show.
  const auto cache = ReferenceCache::build(folder.path(), other, {first, second}, needs);
  EXPECT_EQ(cache.log_probability(first.row_id()), value);
  EXPECT_EQ(cache.log_probability(second.row_id()),
            ReferenceCache::build(folder.path() / "fresh", other, {second}, needs)
                .log_probability(second.row_id()));
  EXPECT_THROW(cache.log_probability(12345), Error);
  EXPECT_THROW(cache.label_hidden(first.row_id()), Error);
}

}  // namespace
}  // namespace efface
