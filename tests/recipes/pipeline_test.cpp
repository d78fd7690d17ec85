// A whole run on a tiny model: what is exported, what is cached, what is done again.
#include "recipes/pipeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>

#include "distributed/error.hpp"
#include "recipes/report/report.hpp"
#include "recipes/stages/model_update.hpp"
#include "recipes/stages/workspace.hpp"
#include "tests/recipes/tiny_run.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
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
    on_root([&] { testing::write_tiny_run(folder_); });
  }
  void TearDown() override {
    world().barrier();
    if (world().rank() == 0) fs::remove_all(folder_);
  }

  /// When every rank has looked at what is there, the first changes it, and then the others see it.
  static void on_root(const std::function<void()>& change) {
    world().barrier();
    if (world().rank() == 0) change();
    world().barrier();
  }
  void run(std::vector<std::string> overrides = {}, const PipelineOptions& options = {}) const {
    world().barrier();  // every rank has looked at what an earlier run left
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
  EXPECT_THAT(read_text_file(folder_ / "run/export/huggingface/README.md"), HasSubstr("NSRU"));
}

TEST_F(TinyRun, MeetsTheProjectionsBoundInEveryModuleAndNotWithoutIt) {
  run({"train.learning_rate=0.01"});
  const auto projected = summary("constraint");
  for (const auto& module : projected.at("modules"))
    EXPECT_LE(module.at("of_update").get<double>(), module.at("bound").get<double>() * (1 + 1e-3))
        << module.at("module");
  EXPECT_LE(projected.at("worst_of_bound").get<double>(), 1 + 1e-3);
  EXPECT_FALSE(projected.contains("worst_rounded_of_bound")) << "the model is fp32";
  run({"train.learning_rate=0.01", "nullspace.point=gradient"});
  EXPECT_GT(summary("constraint").at("worst_of_bound").get<double>(), 1.0);
}

TEST_F(TinyRun, AnUnprojectedRunIsMeasuredAgainstTheSameBoundAndItsAdaptersDoNotDependOnIt) {
  run({"train.learning_rate=0.01", "nullspace.point=none"});
  const auto constraint = summary("constraint");
  EXPECT_GT(constraint.at("worst_of_bound").get<double>(), 1.0);
  EXPECT_GT(constraint.at("worst_heldout_of_bound").get<double>(), 1.0);
  const auto trained = when("unlearn"), measured = when("constraint");
  run({"train.learning_rate=0.01", "nullspace.point=none", "nullspace.rank.energy=0.7"});
  EXPECT_EQ(when("unlearn"), trained);
  EXPECT_GT(when("constraint"), measured);
  run({"train.learning_rate=0.01", "nullspace.projection=none"});
  EXPECT_EQ(when("unlearn"), trained);
}

TEST_F(TinyRun, ASmallBudgetGivesTheSameCovariancesInGroupsOfLayers) {
  PipelineOptions until;
  until.until = "nullspace";
  run({}, until);
  const auto whole = summary("covariance"), bases = summary("nullspace");
  EXPECT_EQ(whole.at("groups"), 1);
  const double bytes = 0.6 * whole.at("bytes_with_all_layers").get<double>();
  run({"nullspace.memory=" + std::to_string(bytes / (1 << 30))}, until);
  EXPECT_EQ(summary("covariance").at("groups"), 1) << "the budget does not make a result another one";
  until.redo = {"covariance"};
  run({"nullspace.memory=" + std::to_string(bytes / (1 << 30))}, until);
  EXPECT_GT(summary("covariance").at("groups"), 1);
  EXPECT_EQ(summary("covariance").at("inputs"), whole.at("inputs"));
  auto again = summary("nullspace").at("inputs"), before = bases.at("inputs");
  for (auto* inputs : {&again, &before})
    for (auto& input : *inputs) input.erase("seconds");
  EXPECT_EQ(again, before);
  EXPECT_FALSE(fs::exists(folder_ / "run/covariance/boundary"));
}

TEST_F(TinyRun, AnAutomaticRankLeavesAtMostFivePercentOfHeldOutEnergyOutside) {
  PipelineOptions until;
  until.until = "nullspace";
  run({"nullspace.rank=auto", "nullspace.protect_sink=no"}, until);
  for (const auto& input : summary("nullspace").at("inputs")) {
    EXPECT_LE(input.at("heldout_residual_energy").get<double>(), 0.05 + 1e-6) << input.at("input");
    EXPECT_GT(input.at("k").get<int64_t>(), 0);
  }
}

TEST_F(TinyRun, TheRidgeProjectorNeedsNoEigenvectorsAndClaimsNoBound) {
  run({"nullspace.projection=ridge"});
  for (const auto& input : summary("nullspace").at("inputs")) {
    EXPECT_THAT(input.at("solver").get<std::string>(), HasSubstr("potrf"));
    EXPECT_TRUE(input.at("spectrum").empty());
    EXPECT_GT(input.at("energy").get<double>(), 0.3);
  }
  const double leak = summary("constraint").at("worst_leak").get<double>();
  EXPECT_GT(leak, 0);
  EXPECT_FALSE(summary("constraint").contains("worst_of_bound"));
  EXPECT_THAT(read_text_file(folder_ / "run/export/huggingface/README.md"), HasSubstr("projected (ridge"));
  EXPECT_THAT(read_text_file(folder_ / "run/report.html"), HasSubstr("Did it stay in the null space?"));
  run({"nullspace.projection=ridge", "nullspace.solver=lapack"});
  EXPECT_THAT(summary("nullspace").at("inputs")[0].at("solver").get<std::string>(), HasSubstr("dsyevd"));
  EXPECT_NEAR(summary("constraint").at("worst_leak").get<double>(), leak, 0.05 * leak);
}

TEST_F(TinyRun, WithoutAProjectionThereIsNoSubspace) {
  run({"nullspace.projection=none"});
  for (const char* stage : {"covariance", "nullspace", "constraint"})
    EXPECT_FALSE(fs::exists(folder_ / "run" / stage / "done.json")) << stage;
}

TEST_F(TinyRun, AnotherExportedDtypeIsMeasuredAndExportedAgainButNotTrainedAgain) {
  run();
  const auto trained = when("unlearn"), measured = when("constraint"), exported = when("export");
  run({"output.dtype=fp32"});
  EXPECT_EQ(when("unlearn"), trained);
  EXPECT_GT(when("constraint"), measured);
  EXPECT_GT(when("export"), exported);
}

TEST(StageLines, TheConstraintsHasTheWorstLeakTheWorstHeldOutAndTheWorstAfterRounding) {
  const auto line = constraint_stage().line(
      {{"worst_of_bound", 0.5}, {"worst_heldout_of_bound", 3.25}, {"worst_rounded_of_bound", 1.5}});
  EXPECT_EQ(line, "leak at most 0.5 of its bound, 3.25 on held-out tokens, 1.5 after rounding");
}

TEST(StageLines, TheNullspacesNamesTheInputsThatAFewTokensOrOneDirectionRule) {
  const auto input = [](const char* name, double first, double token) {
    return nlohmann::json{{"input", name},
                          {"k", 2},
                          {"n", 4},
                          {"lambda_1_share", first},
                          {"top_token_share", token},
                          {"warnings", nlohmann::json::array()}};
  };
  const auto line =
      nullspace_stage().line({{"inputs", {input("0.qkv", 0.2, 0.5), input("3.down", 0.9, 0.1)}}});
  EXPECT_THAT(line, HasSubstr("lambda_1 holds up to 90% (3.down), one token up to 50% (0.qkv)"));
}

TEST(BeforeAfterTable, SaysHowFarTheAnswersWentDown) {
  const nlohmann::json after = {
      {"scores", {{"forget/trained", {{"geometric_mean", 1e-6}}}}},
      {"perplexity", 0.0},
      {"forgetting",
       {{"forget/bare",
         {{"geometric", 30.0}, {"median", 20.0}, {"share_down_100x", 0.25}, {"share_down_10x", 0.75}}},
        {"forget/trained",
         {{"geometric", 500.0}, {"median", 400.0}, {"share_down_100x", 0.5}, {"share_down_10x", 0.75}}}}}};
  const auto table = before_after_table(nullptr, after);
  EXPECT_THAT(table, HasSubstr("down 500x, median over facts 400x, 50% of them down 100x"));
  EXPECT_THAT(table, HasSubstr("down 30x, median over facts 20x, 75% of them down 10x"));
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
  for (const char* stage :
       {"before", "covariance", "nullspace", "answers", "unlearn", "constraint", "evaluate", "export"})
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
  run({"train.learning_rate=0.002"});
  EXPECT_EQ(when("covariance"), covariance);
  EXPECT_EQ(when("nullspace"), nullspace);
  EXPECT_EQ(when("before"), before);
  EXPECT_GT(when("unlearn"), trained);
  run({"train.learning_rate=0.002", "nullspace.rank.energy=0.7"});
  EXPECT_EQ(when("covariance"), covariance);
  EXPECT_GT(when("nullspace"), nullspace);
}

TEST_F(TinyRun, TheCardFollowsTheFiguresItQuotesAndTheModelItNames) {
  run();
  const auto trained = when("unlearn"), exported = when("export");
  run({"evaluate.sample_tokens=3"});
  EXPECT_EQ(when("unlearn"), trained);
  EXPECT_GT(when("export"), exported);
  const auto again = when("export");
  on_root([&] { fs::rename(folder_ / "model", folder_ / "moved"); });
  run({"evaluate.sample_tokens=3", "model.path=" + (folder_ / "moved").string()});
  EXPECT_EQ(when("unlearn"), trained);
  EXPECT_GT(when("export"), again);
  EXPECT_THAT(read_text_file(folder_ / "run/export/huggingface/README.md"), HasSubstr("base_model: moved"));
}

TEST_F(TinyRun, WhatIsRedoneTakesWhatFollowsWithItAndNothingElse) {
  run();
  const auto before = when("before"), covariance = when("covariance"), answers = when("answers");
  const char* follow[] = {"nullspace", "unlearn", "constraint", "evaluate", "export"};
  std::map<std::string, fs::file_time_type> earlier;
  for (const char* stage : follow) earlier[stage] = when(stage);
  PipelineOptions options;
  options.redo = {"nullspace"};
  run({}, options);
  for (const char* stage : follow) EXPECT_GT(when(stage), earlier[stage]) << stage;
  EXPECT_EQ(when("before"), before);
  EXPECT_EQ(when("covariance"), covariance);
  EXPECT_EQ(when("answers"), answers);
}

TEST_F(TinyRun, ARedoThatStopsEarlyLeavesNoOlderResultBehind) {
  run();
  PipelineOptions options;
  options.redo = {"covariance"};
  options.until = "covariance";
  run({}, options);
  EXPECT_TRUE(fs::exists(folder_ / "run/covariance/done.json"));
  for (const char* stage : {"nullspace", "unlearn", "constraint", "evaluate", "export"})
    EXPECT_FALSE(fs::exists(folder_ / "run" / stage / "done.json")) << stage;
}

TEST_F(TinyRun, AKeyHasTheVersionsOfAllThatItDependsOn) {
  run();
  const auto key = nlohmann::json::parse(read_text_file(folder_ / "run/export/done.json")).at("key");
  EXPECT_EQ(key.at("version"), 1);
  for (const auto& [stage, version] : std::map<std::string, int>{{"before", 1},
                                                                 {"covariance", 3},
                                                                 {"nullspace", 2},
                                                                 {"answers", 1},
                                                                 {"unlearn", 2},
                                                                 {"constraint", 1},
                                                                 {"evaluate", 1}})
    EXPECT_EQ(key.at("reads").at(stage).at("version"), version) << stage;
}

TEST_F(TinyRun, AResultOfAnotherVersionIsNotTakenUp) {
  run();
  const auto trained = when("unlearn"), covariance = when("covariance"), before = when("before");
  const auto set_version = [&](const char* stage, const char* where) {
    const auto file = folder_ / "run" / stage / "done.json";
    auto done = nlohmann::json::parse(read_text_file(file));
    done["key"][nlohmann::json::json_pointer(where)] = 0;
    done["hash"] = hash_text(done["key"].dump());
    write_text_file(file, done.dump());
  };
  on_root([&] {
    set_version("covariance", "/version");
    set_version("unlearn", "/reads/covariance/version");
  });
  run();
  EXPECT_GT(when("covariance"), covariance);
  EXPECT_GT(when("unlearn"), trained);
  EXPECT_EQ(when("before"), before);
}

TEST_F(TinyRun, TheReportHasOnlyTheStagesOfItsOwnRun) {
  run();
  const auto report = [&] { return read_text_file(folder_ / "run/report.html"); };
  for (const char* text : {"The retain subspace", "Did it stay in the null space?", "Before and after"})
    EXPECT_THAT(report(), HasSubstr(text));
  run({"nullspace.projection=none", "evaluate.before=no", "evaluate.after=no"});
  for (const char* text : {"The retain subspace", "Did it stay in the null space?", "Before and after"})
    EXPECT_THAT(report(), ::testing::Not(HasSubstr(text)));
  EXPECT_THAT(report(), HasSubstr("Training"));
}

TEST_F(TinyRun, TheHeadlineCountsTheQuestionsThatWereRightBeforeAndStillAre) {
  const auto write = [&](const char* stage, const std::vector<bool>& right) {
    const nlohmann::json scores = {{"unseen/trained", {{"questions", 4}, {"first_is_argmax", right}}}};
    write_text_file(folder_ / "judged" / stage / "done.json",
                    nlohmann::json{{"summary", {{"scores", scores}, {"perplexity", 0.0}}}}.dump());
  };
  if (world().rank() != 0) return;
  for (const char* stage : {"before", "evaluate"}) fs::create_directories(folder_ / "judged" / stage);
  write_text_file(folder_ / "judged/run.json", R"({"stages": ["before", "evaluate"]})");
  write("before", {true, true, true, false});
  write("evaluate", {true, false, false, true});
  write_report(folder_ / "judged");
  EXPECT_THAT(read_text_file(folder_ / "judged/report.html"),
              HasSubstr("<b>33.3%</b><span>of the unseen facts that were right before are right after"));
}

TEST_F(TinyRun, TheReportsTablesHaveEveryModulesFigures) {
  run();
  const auto report = read_text_file(folder_ / "run/report.html");
  for (const char* column : {"output change, held out", "output change, rounded", "tokens per dimension",
                             "energy kept", "held-out energy outside", "λ₁ share", "top token share"})
    EXPECT_THAT(report, HasSubstr(column));
  EXPECT_THAT(report, HasSubstr("3.gate_up"));
}

TEST_F(TinyRun, GoesOnFromTheLastCheckpointAndEndsWhereAnUninterruptedRunEnds) {
  run();
  const std::string whole = read_text_file(folder_ / "run/unlearn/update.safetensors");
  // As a kill after step 4 leaves it: a checkpoint, no done.json. The run of 4 steps differs in its key
  // alone.
  on_root([&] {
    fs::remove(folder_ / "run/unlearn/done.json");
    fs::remove(folder_ / "run/unlearn/update.safetensors");
  });
  run();
  EXPECT_EQ(summary("unlearn").at("resumed_at").get<int64_t>(), 6);
  EXPECT_EQ(read_text_file(folder_ / "run/unlearn/update.safetensors"), whole);
  EXPECT_EQ(summary("unlearn").at("steps").size(), 6u);
}

TEST_F(TinyRun, ACheckpointOfOtherSettingsIsNotTakenUp) {
  run();
  on_root([&] { fs::remove(folder_ / "run/unlearn/done.json"); });
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

TEST_F(TinyRun, MistakesInTheDataAreFoundBeforeAnyWork) {
  on_root([&] {
    write_text_file(folder_ / "no_safe.jsonl", R"({"question": "Q?", "answer": "A"})");
    write_text_file(
        folder_ / "bare.jsonl",
        R"({"bare_prompt": "The capital of France is", "answer": "Paris", "safe_response": "No."})");
  });
  const std::string no_safe = "data.forget=" + (folder_ / "no_safe.jsonl").string(),
                    bare = "data.forget=" + (folder_ / "bare.jsonl").string();
  const struct {
    std::vector<std::string> overrides;
    ErrorClass kind;
    const char* says;
  } mistakes[] = {
      {{no_safe}, ErrorClass::data, "no_safe.jsonl:1: has no safe response"},
      {{bare, "train.forget_wordings=[bare]"},
       ErrorClass::data,
       "bare.jsonl:1: has no question to give the safe response to"},
      {{bare, "method=GradAscent", "method_args={}", "train={steps: 2, rows: {forget: 2}}"},
       ErrorClass::data,
       "bare.jsonl:1: would not be forgotten, for it gives no forget row"},
      {{"train.safe_wordings=[]"}, ErrorClass::data, "reads 'safe' rows, but the data gives none"},
      {{"method=NPO", "method_args={}", "train={steps: 2, rows: {forget: 2}}"},
       ErrorClass::recipe,
       "'train.rows.retain' is 0, but NPO reads such rows"},
      {{"method=GradAscent", "method_args={}", "train={steps: 2, rows: {forget: 2, text: 1}}"},
       ErrorClass::recipe,
       "GradAscent has no retain loss switched on"},
      {{"nullspace.projection=ridge", "nullspace.protect_sink=yes"},
       ErrorClass::recipe,
       "'nullspace.protect_sink' does not go with ridge"},
      {{"nullspace.solver=cholesky"},
       ErrorClass::recipe,
       "'nullspace.solver' has no eigenvectors, which 'nullspace.projection: hard' needs"},
      {{"train.layers=[4]"}, ErrorClass::recipe, "names layer 4, but the model has 4"},
      {{"method=KUDA", "method_args={}", "train={steps: 2, rows: {forget: 2}, layers: [1]}",
        "output.formats=[peft]"},
       ErrorClass::recipe,
       "nothing would be exported"}};
  for (const auto& mistake : mistakes) {
    try {
      run(mistake.overrides);
      ADD_FAILURE() << "accepted: " << mistake.says;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), mistake.kind) << error.what();
      EXPECT_THAT(error.what(), HasSubstr(mistake.says));
    }
    EXPECT_FALSE(fs::exists(folder_ / "run/before")) << mistake.says;
  }
}

TEST_F(TinyRun, ABareFactIsForgottenWhenTheRecipeTakesItsForm) {
  on_root([&] {
    write_text_file(folder_ / "bare.jsonl",
                    R"({"bare_prompt": "The capital of France is", "answer": "Paris"})");
  });
  run({"data.forget=" + (folder_ / "bare.jsonl").string(), "method=GradAscent", "method_args={}",
       "train={steps: 1, warmup_steps: 0, rows: {forget: 1}, forget_wordings: [question, bare]}",
       "evaluate.before=no", "evaluate.after=no"});
  EXPECT_EQ(summary("unlearn").at("steps").size(), 1u);
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

TEST_F(TinyRun, FinetuningGoesOnFromItsCheckpointWithTheLossesOfAllSteps) {
  PipelineOptions options;
  options.until = "finetune";
  run({"finetune.steps=4", "finetune.batch_size=4"}, options);
  const auto whole = summary("finetune").at("losses");
  EXPECT_EQ(whole.size(), 4u);
  on_root([&] { fs::remove(folder_ / "run/finetune/done.json"); });
  run({"finetune.steps=4", "finetune.batch_size=4"}, options);
  EXPECT_EQ(summary("finetune").at("losses"), whole);
}

TEST_F(TinyRun, FinetuningDependsOnTheLengthOfItsTextRows) {
  PipelineOptions options;
  options.until = "finetune";
  run({"finetune.steps=1", "finetune.batch_size=4"}, options);
  const auto taught = when("finetune");
  run({"finetune.steps=1", "finetune.batch_size=4", "train.text_window=16"}, options);
  EXPECT_GT(when("finetune"), taught);
}

TEST_F(TinyRun, AsksTheFrozenModelInPassesAndSaysHowFarItIs) {
  const Mesh mesh = make_mesh(world(), 1, 0, at::kCPU);
  Transformer model = Transformer::load(folder_ / "model", mesh);
  TrainingPool pool;
  for (int64_t row = 0; row < 40; ++row) {
    TokenRow tokens;
    for (int64_t i = 0; i < 250; ++i) tokens.ids.push_back((i * (row + 1)) % 256);
    tokens.prompt_length = 100;
    pool.groups[RowRole::forget].push_back({TrainingRow{tokens, RowRole::forget}});
  }
  const auto method = make_method("NPO", {{"alpha", 0}});
  std::vector<int64_t> done;
  int64_t all = 0;
  ReferenceCache::build(folder_ / "references", model, pool, *method, [&](int64_t rows, int64_t total) {
    done.push_back(rows);
    all = total;
  });
  EXPECT_EQ(world().all_reduce(all), 40);
  EXPECT_GT(done.size(), 1u);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), all);
}

}  // namespace
}  // namespace efface
