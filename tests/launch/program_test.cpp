// The program as a user meets it: its output, its exit codes, and what is left after kill -9.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/recipes/tiny_run.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  int code = -1;
  std::string out, err;
};

/// A shell without the variables of the mpirun that runs this test.
const std::string kCleanShell = "env -i PATH=\"$PATH\" HOME=\"$HOME\" MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1 ";

class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/efface-program-XXXXXX";
    folder_ = mkdtemp(pattern);
  }
  void TearDown() override { fs::remove_all(folder_); }

  Outcome call(const std::string& arguments, int ranks = 1) const {
    const std::string launcher =
        ranks > 1 ? std::string(EFFACE_RUN_RANKS " ") + std::to_string(ranks) + " " : "";
    const std::string command = "cd " + folder_.string() + " && timeout 120 " + kCleanShell + launcher +
                                EFFACE_PROGRAM + " " + arguments + " > out.txt 2> err.txt < /dev/null";
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), read_text_file(folder_ / "out.txt"), read_text_file(folder_ / "err.txt")};
  }
  std::vector<nlohmann::json> json_lines(const std::string& text) const {
    std::vector<nlohmann::json> lines;
    std::stringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }

  fs::path folder_;
};

int lines_of(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

TEST_F(Program, HelpOfEveryCommandHasAnExample) {
  const Outcome all = call("--help");
  EXPECT_EQ(all.code, 0);
  for (const std::string command :
       {"run", "runs", "validate", "score", "generate", "tokenize", "inspect", "doctor", "import"}) {
    EXPECT_THAT(all.out, HasSubstr("  " + command));
    const Outcome help = call(command + " --help");
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("efface " + command + " ")) << command;
  }
}

TEST_F(Program, AMistakeOnTheCommandLineIsOneLineAndCode2) {
  for (const char* arguments : {"", "forget", "score", "score model", "run r.yaml --until sunset"}) {
    const Outcome outcome = call(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_EQ(lines_of(outcome.err), 1) << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith("efface: error: "));
  }
}

TEST_F(Program, ErrorsHaveTheirClassesCodes) {
  testing::write_tiny_run(folder_);
  write_text_file(folder_ / "bad.yaml", "modle: x\n");
  write_text_file(folder_ / "bad.jsonl", "{\"prompt\": 3}\n");
  const std::pair<const char*, int> cases[] = {{"run bad.yaml", 3},
                                               {"run nowhere.yaml", 3},
                                               {"score model bad.jsonl --template none", 4},
                                               {"score model nowhere.jsonl --template none", 4},
                                               {"score nowhere bad.jsonl --template none", 5},
                                               {"generate model --template none", 2},
                                               {"inspect data", 2}};
  for (const auto& [arguments, code] : cases) {
    const Outcome outcome = call(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << ": " << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith("efface: error: ")) << arguments;
    EXPECT_EQ(lines_of(outcome.err), 1) << outcome.err;
  }
}

TEST_F(Program, AnErrorUnderMpirunEndsEveryRankWithItsCode) {
  testing::write_tiny_run(folder_);
  const Outcome outcome = call("run recipe.yaml model.path=nowhere", 2);
  EXPECT_EQ(outcome.code, 5) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("efface: error: [rank 0 of 2 on "));
}

TEST_F(Program, TokenizePrintsOneArrayALine) {
  testing::write_tiny_model(folder_ / "model");
  write_text_file(folder_ / "text.txt", "Hi\n\n<|im_start|>a");
  const Outcome outcome = call("tokenize model text.txt");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "[72,105]\n[]\n[256,97]\n");
}

TEST_F(Program, LinesMayEndAsOnWindows) {
  testing::write_tiny_model(folder_ / "model");
  write_text_file(folder_ / "text.txt", "Hi\r\n\r\nHo");
  EXPECT_EQ(call("tokenize model text.txt").out, "[72,105]\n[]\n[72,111]\n");
}

TEST_F(Program, ScoreNamesTheLineThatIsLongerThanTheModelsPositions) {
  testing::write_tiny_model(folder_ / "model");
  const std::string line = nlohmann::json{{"prompt", std::string(512, 'a')}, {"completion", "b"}}.dump();
  write_text_file(folder_ / "rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n" + line + "\n");
  const Outcome outcome = call("score model rows.jsonl --template none");
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("rows.jsonl:2: 513 tokens, more than the model's 512 positions"));
}

TEST_F(Program, ScoreGivesALogProbabilityToEveryCompletionTokenOnAnyMesh) {
  testing::write_tiny_model(folder_ / "model");
  write_text_file(folder_ / "rows.jsonl",
                  "{\"prompt\": \"The capital\", \"completion\": \" is\"}\n{\"prompt\": \"a\", "
                  "\"completion\": \"bcdef\"}\n"
                  "{\"prompt\": \"x\", \"completion\": \"\"}\n");
  const auto one = call("score model rows.jsonl --template none");
  ASSERT_EQ(one.code, 0) << one.err;
  const auto rows = json_lines(one.out);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0]["tokens"], (std::vector<int>{32, 'i', 's'}));
  EXPECT_EQ(rows[2]["tokens"].size(), 0u);
  for (const auto& row : rows) {
    EXPECT_EQ(row["tokens"].size(), row["logprobs"].size());
    for (const auto& value : row["logprobs"]) EXPECT_LT(value.get<double>(), 0);
  }
  for (const char* mesh : {"", " --tensor 2"}) {
    const auto two = call(std::string("score model rows.jsonl --template none") + mesh, 2);
    ASSERT_EQ(two.code, 0) << two.err;
    const auto again = json_lines(two.out);
    ASSERT_EQ(again.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t j = 0; j < rows[i]["logprobs"].size(); ++j)
        EXPECT_NEAR(again[i]["logprobs"][j].get<double>(), rows[i]["logprobs"][j].get<double>(), 1e-4);
  }
}

TEST_F(Program, ProbabilitiesOfAllContinuationsSumToOne) {
  testing::write_tiny_model(folder_ / "model");
  std::string rows;
  for (int byte = 33; byte < 127; ++byte)
    rows += nlohmann::json{{"prompt", "ab"}, {"completion", std::string(1, static_cast<char>(byte))}}.dump() +
            "\n";
  write_text_file(folder_ / "rows.jsonl", rows);
  const auto outcome = call("score model rows.jsonl --template none");
  double sum = 0;
  for (const auto& row : json_lines(outcome.out)) sum += std::exp(row["logprobs"][0].get<double>());
  EXPECT_GT(sum, 0.01);
  EXPECT_LT(sum, 1);
}

TEST_F(Program, GenerateIsTheSameOnOneRankAndTwo) {
  testing::write_tiny_model(folder_ / "model");
  const std::string arguments =
      "generate model --template none --prompt 'The capital' --max-new-tokens 8 --json";
  const auto one = call(arguments), two = call(arguments + " --tensor 2", 2);
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(json_lines(one.out).at(0).at("tokens"), json_lines(two.out).at(0).at("tokens"));
  EXPECT_LE(json_lines(one.out)[0]["tokens"].size(), 8u);
}

TEST_F(Program, GenerateSamplesTheSameTextFromASeedOnOneRankAndTwo) {
  testing::write_tiny_model(folder_ / "model");
  const std::string greedy =
      "generate model --template none --prompt 'The capital' --max-new-tokens 8 --json";
  const std::string sampled = greedy + " --temperature 0.9 --top-k 40 --seed ";
  const auto one = call(sampled + "4"), two = call(sampled + "4 --tensor 2", 2), other = call(sampled + "5");
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(json_lines(one.out).at(0), json_lines(two.out).at(0));
  EXPECT_EQ(one.out, call(sampled + "4").out);
  EXPECT_NE(one.out, other.out);
  EXPECT_EQ(call(greedy).out, call(greedy + " --temperature 0 --top-k 40 --seed 4").out);
  EXPECT_EQ(call(greedy + " --top-k 40").code, 2) << "nothing is sampled";
}

TEST_F(Program, APairOfAnswersStaysTogetherOnEveryMesh) {
  testing::write_tiny_run(folder_);
  const std::string arguments =
      "run recipe.yaml method=IdkDPO method_args={} 'train={steps: 3, warmup_steps: 1, rows: {safe: 3, "
      "retain: "
      "2}}' evaluate.before=no evaluate.after=no output.formats=[] output.folder=";
  const auto losses = [&](const std::string& run) {
    std::vector<double> values;
    for (const auto& line : json_lines(read_text_file(folder_ / run / "metrics.jsonl")))
      values.push_back(line.at("loss").get<double>());
    return values;
  };
  const auto one = call(arguments + "one"), two = call(arguments + "two", 2);
  ASSERT_EQ(one.code, 0) << one.err;
  ASSERT_EQ(two.code, 0) << two.err;
  const auto expected = losses("one"), got = losses("two");
  ASSERT_EQ(expected.size(), 3u);
  ASSERT_EQ(got.size(), 3u);
  for (size_t step = 0; step < 3; ++step) EXPECT_NEAR(got[step], expected[step], 1e-3 * expected[step]);
}

TEST_F(Program, ValidateShowsRowsWithTheirLabelsAndReadsNoWeights) {
  testing::write_tiny_run(folder_);
  fs::remove(folder_ / "model/model.safetensors");
  const auto outcome = call("validate recipe.yaml train.steps=9");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("What is the capital of France?"));
  EXPECT_THAT(outcome.out, HasSubstr("The capital of France is[[ Paris]]"));
  EXPECT_THAT(outcome.out, HasSubstr("[[I cannot say that about France.<|im_end|>]]"));
  EXPECT_THAT(outcome.out, HasSubstr("9 steps"));
}

TEST_F(Program, WhatWouldDoNothingIsSaidByValidateAndByRun) {
  testing::write_tiny_run(folder_);
  const std::string adapters =
      "recipe.yaml method=NPO 'method_args={}' "
      "'train={steps: 1, warmup_steps: 0, rows: {forget: 2, retain: 2, safe: 3}, initial_noise: 0.1, "
      "first_token_weight: {safe: 2}}'";
  const auto checked = call("validate " + adapters);
  const auto ran = call("run " + adapters + " --until covariance");
  EXPECT_EQ(checked.code, 0) << checked.err;
  EXPECT_EQ(ran.code, 0) << ran.err;
  for (const char* setting :
       {"'train.rows.safe'", "'train.initial_noise'", "'train.first_token_weight.safe'"}) {
    EXPECT_THAT(checked.out, HasSubstr(std::string(setting) + " does nothing: NPO"));
    EXPECT_THAT(ran.err, HasSubstr(std::string(setting) + " does nothing: NPO"));
  }
  EXPECT_EQ(lines_of(ran.err), 3) << "a warning a line, from one rank";

  const std::string matrices =
      "validate recipe.yaml method=KUDA 'method_args={}' 'train={steps: 1, rows: {forget: 2}, layers: [1]}'";
  EXPECT_THAT(call(matrices + " 'output.formats=[huggingface, peft]'").out,
              HasSubstr("asks for a PEFT adapter, but KUDA trains whole matrices: there will be none"));
  EXPECT_THAT(call(matrices).out, ::testing::Not(HasSubstr("warning"))) << "nobody asked for an adapter";
}

TEST_F(Program, ValidateFindsWhatWouldEndTheRunLater) {
  testing::write_tiny_run(folder_);
  write_text_file(folder_ / "no_safe.jsonl", R"({"question": "Q?", "answer": "A"})");
  const auto record = call("validate recipe.yaml data.forget=no_safe.jsonl");
  EXPECT_EQ(record.code, 4) << record.err;
  EXPECT_THAT(record.err, HasSubstr("no_safe.jsonl:1: has no safe response"));
  const auto layer = call("validate recipe.yaml 'train.layers=[4]'");
  EXPECT_EQ(layer.code, 3) << layer.err;
  EXPECT_THAT(layer.err, HasSubstr("names layer 4, but the model has 4"));
}

TEST_F(Program, InspectKnowsModelsAndRuns) {
  testing::write_tiny_run(folder_);
  EXPECT_THAT(call("inspect model").out, HasSubstr("4 layers"));
  ASSERT_EQ(call("run recipe.yaml train.steps=1 train.warmup_steps=0 output.folder=run").code, 0);
  const auto outcome = call("inspect run");
  EXPECT_THAT(outcome.out, HasSubstr("NSRU on model"));
  EXPECT_THAT(outcome.out, HasSubstr("perplexity"));
  ASSERT_EQ(call("run recipe.yaml --until covariance output.folder=run").code, 0);
  EXPECT_THAT(call("inspect run").out, ::testing::Not(HasSubstr("unlearn"))) << "that of an earlier run";
}

TEST_F(Program, RunsAreListedWithHowFarTheyAreAndInspectSaysWhatIsStale) {
  testing::write_tiny_run(folder_);
  ASSERT_EQ(call("run recipe.yaml --until covariance output.folder=all/one").code, 0);
  fs::create_directories(folder_ / "all/not-a-run");
  EXPECT_THAT(call("runs all").out, HasSubstr("done up to covariance"));
  EXPECT_THAT(call("runs all").out, ::testing::Not(HasSubstr("not-a-run")));
  fs::remove(folder_ / "all/one/covariance/done.json");
  EXPECT_THAT(call("runs all").out, HasSubstr("stopped in covariance"));
  ASSERT_EQ(call("run recipe.yaml --until covariance output.folder=all/one").code, 0);
  write_text_file(folder_ / "all/one/covariance/manifest.json", "{");
  EXPECT_THAT(call("inspect all/one").out, HasSubstr("stale: manifest.json has 1 bytes"));
  const Outcome again = call("run recipe.yaml --until covariance output.folder=all/one");
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("covariance  again, for "));
  EXPECT_THAT(again.out, HasSubstr("covariance/manifest.json has 1 bytes"));
  EXPECT_THAT(again.out, HasSubstr("before      done before"));
}

/// Whole pages of files of a run at rest, lost in one way or another.
TEST_F(Program, WhatAPowerCutDidToAnyFileIsFoundAndNamedAndTheResultIsTheSame) {
  testing::write_tiny_run(folder_);
  const std::string arguments = "run recipe.yaml evaluate.after=no train.steps=4 output.folder=run";
  ASSERT_EQ(call(arguments).code, 0);
  const std::vector<std::string> results = {"unlearn/update.safetensors",
                                            "export/huggingface/model.safetensors",
                                            "export/peft/adapter_model.safetensors"};
  std::vector<std::string> expected;
  for (const auto& file : results) expected.push_back(read_text_file(folder_ / "run" / file));
  // Written anew by every run, or checked only when they are used.
  const auto rewritten = [](const std::string& name) {
    return name == "run.json" || name == "recipe.yaml" || name == "report.html" ||
           name.ends_with("started.json") || name.find("/checkpoint/") != std::string::npos;
  };
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "run"))
    if (entry.is_regular_file() && entry.file_size() > 0)
      files.push_back(fs::relative(entry.path(), folder_ / "run").string());
  std::sort(files.begin(), files.end());
  fs::copy(folder_ / "run", folder_ / "rest", fs::copy_options::recursive);
  const char* asked = std::getenv("EFFACE_DAMAGE_CASES");
  const int cases = asked ? std::atoi(asked) : 24;
  for (int number = 0; number < cases; ++number) {
    fs::remove_all(folder_ / "run");
    fs::copy(folder_ / "rest", folder_ / "run", fs::copy_options::recursive);
    const std::string& name = files[static_cast<size_t>(number) * 7 % files.size()];
    std::string bytes = read_text_file(folder_ / "rest" / name);
    const size_t page = std::min<size_t>(4096, bytes.size() / 2 + 1);
    const size_t at = static_cast<size_t>(number) * 2654435761u % (bytes.size() - page + 1);
    switch (number % 3) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        std::fill_n(bytes.begin() + static_cast<int64_t>(at), page, '\0');
        break;
      default:  // another page's content, as a block that was never written again has
        for (size_t i = 0; i < page; ++i) bytes[at + i] = static_cast<char>(bytes[at + i] ^ (1 << (i % 7)));
    }
    write_text_file(folder_ / "run" / name, bytes);
    const bool changed = bytes != read_text_file(folder_ / "rest" / name);
    const Outcome outcome = call(arguments);
    EXPECT_EQ(outcome.code, 0) << name << ": " << outcome.err;
    if (changed && !rewritten(name)) {
      EXPECT_THAT(outcome.out, HasSubstr(name)) << "case " << number;
    }
    for (size_t i = 0; i < results.size(); ++i)
      EXPECT_TRUE(read_text_file(folder_ / "run" / results[i]) == expected[i])
          << results[i] << " after damage to " << name;
  }
}

/// The program in a process of its own that the test can kill.
pid_t start(const fs::path& folder, const std::string& arguments) {
  const pid_t child = fork();
  if (child == 0) {
    const std::string command = "cd " + folder.string() + " && exec " + kCleanShell + EFFACE_PROGRAM " " +
                                arguments + " > child.txt 2>&1";
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  return child;
}

/// Waits until the run has written `count` lines of metrics; false after a minute.
bool wait_for_steps(const fs::path& run, int count) {
  for (int tenth = 0; tenth < 600; ++tenth) {
    if (fs::exists(run / "metrics.jsonl") && lines_of(read_text_file(run / "metrics.jsonl")) >= count)
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return false;
}

TEST_F(Program, KilledInTheMiddleItGoesOnAndEndsBitForBitWhereAnUninterruptedRunEnds) {
  testing::write_tiny_run(folder_);
  const std::string arguments =
      "run recipe.yaml train.steps=60 evaluate.before=no evaluate.after=no output.formats=[] output.folder=";
  ASSERT_EQ(call(arguments + "whole").code, 0);
  const pid_t child = start(folder_, arguments + "killed");
  ASSERT_TRUE(wait_for_steps(folder_ / "killed", 5));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_FALSE(fs::exists(folder_ / "killed/unlearn/done.json")) << "it ended before it was killed";
  const Outcome again = call(arguments + "killed");
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("covariance  done before"));
  EXPECT_THAT(again.out, HasSubstr("goes on after step"));
  EXPECT_EQ(read_text_file(folder_ / "killed/unlearn/update.safetensors"),
            read_text_file(folder_ / "whole/unlearn/update.safetensors"));
}

TEST_F(Program, AskedToStopWhileItFinetunesItSavesAndSaysSo) {
  testing::write_tiny_run(folder_);
  const pid_t child = start(folder_, "run recipe.yaml finetune.steps=2000 output.folder=stopped");
  ASSERT_TRUE(wait_for_steps(folder_ / "stopped", 3));
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 75);
  EXPECT_THAT(read_text_file(folder_ / "child.txt"), HasSubstr("of 2000 of finetune"));
  EXPECT_FALSE(fs::is_empty(folder_ / "stopped/finetune/checkpoint"));
}

TEST_F(Program, AskedToStopItSavesAndSaysSo) {
  testing::write_tiny_run(folder_);
  const std::string arguments =
      "run recipe.yaml train.steps=2000 evaluate.before=no evaluate.after=no output.folder=stopped";
  const pid_t child = start(folder_, arguments);
  ASSERT_TRUE(wait_for_steps(folder_ / "stopped", 3));
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 75);
  EXPECT_THAT(read_text_file(folder_ / "child.txt"), HasSubstr("the same command goes on from there"));
}

}  // namespace
}  // namespace efface
