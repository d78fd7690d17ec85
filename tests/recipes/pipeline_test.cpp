// A whole run on a tiny model: what is exported, what is cached, what is done again.
#include "recipes/pipeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "distributed/error.hpp"
#include "recipes/stages/model_update.hpp"
#include "tests/recipes/tiny_run.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;
using testing::world;

/// A folder of its own for each test, the same on every rank, removed at the end.
class TinyRun : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name;
    if (world().rank() == 0) {
      char pattern[] = "/tmp/efface-run-XXXXXX";
      name = mkdtemp(pattern);
    }
    folder_ = world().broadcast(name, 0);
    if (world().rank() == 0) testing::write_tiny_run(folder_);
    world().barrier();
  }
  void TearDown() override {
    world().barrier();
    if (world().rank() == 0) fs::remove_all(folder_);
  }

  void run(std::vector<std::string> overrides = {}, const PipelineOptions& options = {}) const {
    overrides.push_back("output.folder=" + (folder_ / "run").string());
    run_pipeline(read_recipe(folder_ / "recipe.yaml", overrides), world(), options);
  }
  nlohmann::json summary(const std::string& stage) const {
    return nlohmann::json::parse(read_text_file(folder_ / "run" / stage / "done.json")).at("summary");
  }
  fs::file_time_type when(const std::string& stage) const {
    return fs::last_write_time(folder_ / "run" / stage / "done.json");
  }

  fs::path folder_;
};

TEST_F(TinyRun, ExportsTheModelPlusTheUpdateAndLeavesTheRestAsItWas) {
  run({"train.learning_rate=0.01"});
  const auto source = SafetensorsReader::open_folder(folder_ / "model");
  const auto result = SafetensorsReader::open_folder(folder_ / "run/export/huggingface");
  const auto adapter = SafetensorsReader::open_file(folder_ / "run/export/peft/adapter_model.safetensors");
  EXPECT_EQ(result.names(), source.names());
  int changed = 0;
  for (const auto& name : source.names()) {
    const std::string module = name.substr(0, name.rfind('.'));
    const std::string base = "base_model.model." + module;
    if (!adapter.contains(base + ".lora_A.weight")) {
      EXPECT_TRUE(at::equal(result.read(name), source.read(name))) << name;
      continue;
    }
    ++changed;
    const auto dw =
        at::mm(adapter.read(base + ".lora_B.weight"), adapter.read(base + ".lora_A.weight")) * (8.0 / 4);
    EXPECT_GT(dw.norm().item<double>(), 0) << name;
    EXPECT_LT(testing::relative_error(result.read(name), source.read(name) + dw), 1e-6) << name;
  }
  EXPECT_EQ(changed, 4 * 7);
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json"})
    EXPECT_EQ(read_text_file(folder_ / "run/export/huggingface" / file),
              read_text_file(folder_ / "model" / file));
  EXPECT_THAT(read_text_file(folder_ / "run/export/huggingface/README.md"), ::testing::HasSubstr("NSRU"));
}

TEST_F(TinyRun, MeetsTheProjectionsBoundInEveryModuleAndNotWithoutIt) {
  run({"train.learning_rate=0.01"});
  const auto projected = summary("unlearn").at("constraint");
  for (const auto& module : projected.at("modules"))
    EXPECT_LE(module.at("of_update").get<double>(), module.at("bound").get<double>() * (1 + 1e-3))
        << module.at("module");
  EXPECT_LE(projected.at("worst_of_bound").get<double>(), 1 + 1e-3);
  run({"train.learning_rate=0.01", "nullspace.point=gradient"});
  EXPECT_GT(summary("unlearn").at("constraint").at("worst_of_bound").get<double>(), 1.0);
}

TEST_F(TinyRun, WritesALineAStepAndASummaryAStage) {
  run();
  std::ifstream metrics(folder_ / "run/metrics.jsonl");
  int64_t expected = 0;
  for (std::string line; std::getline(metrics, line); ++expected) {
    const auto step = nlohmann::json::parse(line);
    EXPECT_EQ(step.at("step").get<int64_t>(), expected);
    EXPECT_TRUE(step.at("parts").contains("retain_kl"));
  }
  EXPECT_EQ(expected, 6);
  for (const char* stage : {"before", "covariance", "nullspace", "answers", "unlearn", "evaluate", "export"})
    EXPECT_GE(summary(stage).at("seconds").get<double>(), 0) << stage;
  EXPECT_EQ(summary("nullspace").at("inputs").size(), 4 * 4u);
  EXPECT_TRUE(summary("evaluate").at("scores").contains("unseen/trained"));
  EXPECT_FALSE(fs::exists(folder_ / "run/trace/done.json"));
}

TEST_F(TinyRun, ASecondRunDoesNothingAgain) {
  run();
  const auto trained = when("unlearn"), exported = when("export");
  run();
  EXPECT_EQ(when("unlearn"), trained);
  EXPECT_EQ(when("export"), exported);
}

TEST_F(TinyRun, OnlyWhatDependsOnAChangeIsDoneAgain) {
  run();
  const auto covariance = when("covariance"), before = when("before"), nullspace = when("nullspace"),
             trained = when("unlearn");
  world().barrier();
  run({"train.learning_rate=0.002"});
  EXPECT_EQ(when("covariance"), covariance);
  EXPECT_EQ(when("nullspace"), nullspace);
  EXPECT_EQ(when("before"), before);
  EXPECT_GT(when("unlearn"), trained);
  world().barrier();
  run({"train.learning_rate=0.002", "nullspace.rank.energy=0.7"});
  EXPECT_EQ(when("covariance"), covariance);
  EXPECT_GT(when("nullspace"), nullspace);
}

TEST_F(TinyRun, GoesOnFromTheLastCheckpointAndEndsWhereAnUninterruptedRunEnds) {
  run();
  const std::string whole = read_text_file(folder_ / "run/unlearn/update.safetensors");
  // As a kill after step 4 leaves it: a checkpoint, no done.json. The run of 4 steps differs in its key
  // alone.
  if (world().rank() == 0) {
    fs::remove(folder_ / "run/unlearn/done.json");
    fs::remove(folder_ / "run/unlearn/update.safetensors");
  }
  world().barrier();
  run();
  EXPECT_EQ(summary("unlearn").at("resumed_at").get<int64_t>(), 6);
  EXPECT_EQ(read_text_file(folder_ / "run/unlearn/update.safetensors"), whole);
  EXPECT_EQ(summary("unlearn").at("steps").size(), 6u);
}

TEST_F(TinyRun, ACheckpointOfOtherSettingsIsNotTakenUp) {
  run();
  if (world().rank() == 0) fs::remove(folder_ / "run/unlearn/done.json");
  world().barrier();
  run({"train.seed=5"});
  EXPECT_EQ(summary("unlearn").at("resumed_at").get<int64_t>(), 0);
}

TEST_F(TinyRun, StopsWhereItIsTold) {
  PipelineOptions options;
  options.until = "covariance";
  run({}, options);
  EXPECT_TRUE(fs::exists(folder_ / "run/covariance/done.json"));
  EXPECT_FALSE(fs::exists(folder_ / "run/nullspace/done.json"));
}

TEST_F(TinyRun, WindowMethodsChangeOnlyTheirLayers) {
  run({"method=KUDA", "method_args={}",
       "train={steps: 4, rows: {forget: 4}, warmup_steps: 1, layers: [1, 2]}"});
  const auto update = ModelUpdate::read(folder_ / "run/unlearn/update.safetensors");
  ASSERT_EQ(update.modules().size(), 2u);
  for (const auto& module : update.modules()) {
    EXPECT_EQ(module.projection, Projection::down);
    EXPECT_GE(module.layer, 1);
    EXPECT_LE(module.layer, 2);
  }
  EXPECT_FALSE(fs::exists(folder_ / "run/export/peft"));
}

TEST_F(TinyRun, TracingAModelThatKnowsNoneOfTheFactsSaysSo) {
  try {
    run({"method=KUDA", "method_args={}", "train={steps: 4, rows: {forget: 4}}"});
    FAIL() << "traced";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::data);
  }
}

TEST_F(TinyRun, BaselinesRunWithAndWithoutTheProjection) {
  for (const char* method : {"NPO", "GradDiff"})
    for (const char* projection : {"hard", "none"}) {
      run({std::string("method=") + method, "method_args={}",
           std::string("nullspace.projection=") + projection,
           "train={steps: 2, warmup_steps: 1, rows: {forget: 2, retain: 2}}", "evaluate.before=no",
           "evaluate.after=no"});
      EXPECT_EQ(summary("unlearn").at("steps").size(), 2u) << method;
    }
}

TEST_F(TinyRun, FinetuningComesFirstAndTheLaterStagesStartFromIt) {
  run({"finetune.steps=3", "finetune.batch_size=4", "train.steps=2"});
  const auto given = SafetensorsReader::open_folder(folder_ / "model");
  const auto taught = SafetensorsReader::open_folder(folder_ / "run/finetune/model");
  const std::string norm = "model.norm.weight", touched = "model.layers.0.mlp.up_proj.weight";
  EXPECT_TRUE(at::equal(taught.read(norm), given.read(norm)));
  EXPECT_FALSE(at::equal(taught.read(touched), given.read(touched)));
  const auto update = ModelUpdate::read(folder_ / "run/unlearn/update.safetensors");
  const auto result = SafetensorsReader::open_folder(folder_ / "run/export/huggingface");
  EXPECT_LT(
      testing::relative_error(result.read(touched), taught.read(touched) + update.delta({0, Projection::up})),
      1e-6);
}

}  // namespace
}  // namespace efface
