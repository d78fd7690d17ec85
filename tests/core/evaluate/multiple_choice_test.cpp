#include "core/evaluate/multiple_choice.hpp"

#include <gmock/gmock.h>

#include <fstream>

#include "distributed/error.hpp"
#include "tests/core/evaluate/tiny.hpp"

namespace efface {
namespace {

using testing::label_log_probabilities;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::tiny_tokenizer;
using testing::world_mesh;

const std::vector<ChoiceQuestion>& questions() {
  static const std::vector<ChoiceQuestion> all = {
      {"biology", " Which cell? ", {"one", "two", "three", "four"}, 1},
      {"biology", "What?", {"a", "b", "c", "d"}, 0},
      {"physics", "How fast?", {"1", "2", "30", "400"}, 3},
      {"physics", "No key", {"1", "2", "3", "4"}, -1}};
  return all;
}

TEST(MultipleChoiceTest, ThePromptIsTheHarnesss) {
  EXPECT_EQ(choice_prompt(questions()[0]),
            "The following are multiple choice questions (with answers) about biology.\n\n"
            "Which cell?\nA. one\nB. two\nC. three\nD. four\nAnswer:");
}

/// With letters of one token the four choices share a row; with letters of two they cannot.
class ChoiceScoresTest : public ::testing::TestWithParam<bool> {};

TEST_P(ChoiceScoresTest, AreTheLettersLogProbabilitiesAfterThePrompt) {
  const Tokenizer tokenizer = tiny_tokenizer(GetParam());
  const Transformer model = Transformer::random(tiny_config(tokenizer), world_mesh(), 3);
  const ChoiceReport report = score_choices(model, tokenizer, questions(), 300);
  int64_t right = 0;
  for (size_t q = 0; q < questions().size(); ++q) {
    const std::string prompt = choice_prompt(questions()[q]);
    size_t best = 0;
    for (size_t c = 0; c < 4; ++c) {
      const std::string letter = std::string(" ") + "ABCD"[c];
      const auto row = plain_row(tokenizer, prompt, letter);
      EXPECT_EQ(row.labels(), GetParam() ? 1 : 2);
      EXPECT_NEAR(report.log_probabilities[q][c], testing::sum(label_log_probabilities(model, row)), 1e-4);
      if (report.log_probabilities[q][c] > report.log_probabilities[q][best]) best = c;
    }
    EXPECT_EQ(report.predictions[q], static_cast<int64_t>(best));
    right += report.predictions[q] == questions()[q].answer;
  }
  EXPECT_EQ(report.counted, 3);
  EXPECT_NEAR(report.accuracy, static_cast<double>(right) / 3, 1e-12);
  EXPECT_EQ(report.accuracy_by_subject.size(), 2u);
}

TEST_P(ChoiceScoresTest, ALongPromptLosesItsLeftEnd) {
  const Tokenizer tokenizer = tiny_tokenizer(GetParam());
  const Transformer model = Transformer::random(tiny_config(tokenizer, 24), world_mesh(), 3);
  const ChoiceReport report = score_choices(model, tokenizer, {questions()[0]}, 300);
  const auto row = plain_row(tokenizer, choice_prompt(questions()[0]), " C");
  const TokenRow cut{{row.ids.end() - 24, row.ids.end()}, 24 - row.labels()};
  EXPECT_NEAR(report.log_probabilities[0][2], testing::sum(label_log_probabilities(model, cut)), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Letters, ChoiceScoresTest, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "one_token" : "two_tokens"; });

TEST(ChoiceFilesTest, CsvFieldsMayHoldQuotesCommasAndLineBreaks) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "high_school_physics_test.csv")
      << "question,choice0,choice1,choice2,choice3,answer\r\n"
         "\"One, \"\"two\"\"\nthree\",a,\"b,c\",,d,2\r\n"
         "Plain 5\" pipe,1,2,3,4,D\n";
  const auto all = read_mmlu(folder.path());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].subject, "high school physics");
  EXPECT_EQ(all[0].question, "One, \"two\"\nthree");
  EXPECT_THAT(all[0].choices, ::testing::ElementsAre("a", "b,c", "", "d"));
  EXPECT_EQ(all[0].answer, 2);
  EXPECT_EQ(all[1].question, "Plain 5\" pipe");
  EXPECT_EQ(all[1].answer, 3);
}

TEST(ChoiceFilesTest, ABrokenCsvIsNamedWithItsLine) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& text) -> std::string {
    std::ofstream(folder.path() / "a.csv") << text;
    try {
      read_mmlu(folder.path() / "a.csv");
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(message("q,1,2,3,4,0\nq,1,2\n"), ::testing::HasSubstr("a.csv:2: six columns"));
  EXPECT_THAT(message("q,1,2,3,4,E\n"), ::testing::HasSubstr("answer 'E'"));
  EXPECT_THAT(message("q,1,2,3,4,0\n\"q,1,2,3,4,0\n"), ::testing::HasSubstr("a.csv:2: a quoted field"));
}

TEST(ChoiceFilesTest, WmdpIsReadInBothShapes) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "wmdp-cyber.json")
      << R"([{"question": "Q?", "choices": ["a", "b", "c", "d"], "answer": 2},
             {"category": "wmdp-bio", "scenario": "Q?\nChoices: ['it', \"it's\", 'a\\'b', 'x, y']"}])";
  const auto all = read_wmdp(folder.path() / "wmdp-cyber.json");
  EXPECT_EQ(all[0].subject, "cybersecurity");
  EXPECT_EQ(all[0].answer, 2);
  EXPECT_EQ(all[1].subject, "biology");
  EXPECT_EQ(all[1].question, "Q?");
  EXPECT_THAT(all[1].choices, ::testing::ElementsAre("it", "it's", "a'b", "x, y"));
  EXPECT_EQ(all[1].answer, -1);
}

TEST(ChoiceFilesTest, ThePublishedSetsAreReadWhole) {
  EFFACE_NEEDS_SHARED_DATA(data);
  const auto mmlu = read_mmlu(data / "mmlu/test");
  EXPECT_EQ(mmlu.size(), 14042u);
  std::map<std::string, int> subjects;
  for (const auto& question : read_wmdp(data / "wmdp/wmdp_noanswers.json")) ++subjects[question.subject];
  EXPECT_EQ(subjects,
            (std::map<std::string, int>{{"biology", 1273}, {"chemistry", 408}, {"cybersecurity", 1987}}));
}

}  // namespace
}  // namespace efface
