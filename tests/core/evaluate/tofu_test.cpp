#include "core/evaluate/tofu.hpp"

#include <gmock/gmock.h>

#include <fstream>

#include "core/evaluate/kolmogorov_smirnov.hpp"
#include "core/evaluate/text_overlap.hpp"
#include "distributed/error.hpp"
#include "tests/core/evaluate/tiny.hpp"

namespace efface {
namespace {

using testing::label_log_probabilities;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::tiny_tokenizer;
using testing::world_mesh;

class TofuTest : public ::testing::Test {
 protected:
  double loss(const std::string& question, const std::string& answer) const {
    const auto log_p =
        label_log_probabilities(model_, chat_row(tokenizer_, chat_, question, "", answer, true));
    return -testing::sum(log_p) / static_cast<double>(log_p.size());
  }

  Tokenizer tokenizer_ = tiny_tokenizer();
  ChatTemplate chat_ = ChatTemplate::named("none");
  Transformer model_ = Transformer::random(tiny_config(tokenizer_), world_mesh(), 11);
  TofuOptions options_{.new_tokens = 0};
};

TEST_F(TofuTest, ScoresFollowTheirDefinitions) {
  const std::vector<TofuQuestion> questions = {{"Who?", "Ann Lee", "It is Ann Lee", {"Bo", "Cy Day", "Eve"}},
                                               {"Where?", "In Rome", "In Rome", {"In Bern"}}};
  const auto scores = score_tofu(model_, tokenizer_, chat_, questions, options_);
  ASSERT_EQ(scores.size(), 2u);
  const double p = std::exp(-loss("Who?", "Ann Lee"));
  const double losses[] = {loss("Who?", "Bo"), loss("Who?", "Cy Day"), loss("Who?", "Eve")};
  const double wrong = std::exp(-losses[0]) + std::exp(-losses[1]) + std::exp(-losses[2]);
  EXPECT_NEAR(scores[0].probability / p, 1, 1e-4);
  EXPECT_NEAR(scores[0].normalized_probability, p / (p + wrong), 1e-4);
  const double ratio =
      std::exp(-(losses[0] + losses[1] + losses[2]) / 3) / std::exp(-loss("Who?", "It is Ann Lee"));
  EXPECT_NEAR(scores[0].truth_ratio / ratio, 1, 1e-4);
  EXPECT_NEAR(scores[1].truth_ratio, std::exp(loss("Where?", "In Rome") - loss("Where?", "In Bern")), 1e-4);
}

TEST_F(TofuTest, WhatTheModelSaysIsMemorised) {
  const auto said = model_.generate({tokenizer_.encode("Who?")}, 8).front();
  const std::string answer = tokenizer_.decode(said);
  std::string first_wrong = answer;
  first_wrong[0] = first_wrong[0] == 'a' ? 'b' : 'a';
  const auto scores =
      score_tofu(model_, tokenizer_, chat_, {{"Who?", answer, answer, {}}, {"Who?", first_wrong, "x", {}}},
                 {.new_tokens = 8});
  EXPECT_EQ(scores[0].exact_memorization, 1);
  EXPECT_EQ(scores[0].extraction_strength, 1);
  EXPECT_EQ(scores[0].generated, answer);
  EXPECT_LT(scores[1].exact_memorization, 1);
  EXPECT_LT(scores[1].extraction_strength, 1);
  EXPECT_EQ(scores[1].rouge_recall, rouge_l(first_wrong, answer, true).recall);
}

std::vector<TofuScore> scores(const std::vector<double>& ratios) {
  std::vector<TofuScore> result;
  for (double ratio : ratios) {
    result.emplace_back();
    result.back().truth_ratio = ratio;
  }
  return result;
}

TEST(TofuAggregatesTest, TruthRatiosAreGoodNearOneForForgettingAndNearZeroForKeeping) {
  EXPECT_NEAR(forget_truth_ratio(scores({1, 0.5, 4})), (1 + 0.5 + 0.25) / 3, 1e-9);
  EXPECT_NEAR(kept_truth_ratio(scores({0, 0.25, 4})), (1 + 0.75 + 0) / 3, 1e-12);
}

TEST(TofuAggregatesTest, UtilityIsZeroWhenOnePartIs) {
  EXPECT_NEAR(harmonic_mean({1, 0.5, 0.25}), 3.0 / (1 + 2 + 4), 1e-12);
  EXPECT_EQ(harmonic_mean({1, 0}), 0);
}

TEST_F(TofuTest, AWholeEvaluationIsWrittenAsOthersReadIt) {
  const TemporaryFolder folder;
  const std::string line =
      R"({"question": "Q", "answer": "Ann", "paraphrased_answer": "An", "perturbed_answer": ["Bo", "Cy"]})";
  for (const char* name : {"forget01", "retain", "real_authors", "world_facts"})
    std::ofstream(folder / (std::string(name) + "_perturbed.json")) << line << "\n" << line << "\n";
  options_.new_tokens = 4;
  const TofuReport report =
      evaluate_tofu(model_, tokenizer_, chat_, folder.path(), "forget01", {0.1, 0.2, 0.3}, options_);
  const auto& one = report.forget[0];
  ASSERT_TRUE(report.forget_quality.has_value());
  EXPECT_EQ(*report.forget_quality,
            kolmogorov_smirnov({one.truth_ratio, one.truth_ratio}, {0.1, 0.2, 0.3}).p_value);
  const double kept = std::max(0.0, 1 - one.truth_ratio);
  EXPECT_NEAR(report.model_utility,
              harmonic_mean({one.probability, one.rouge_recall, kept, one.normalized_probability,
                             one.rouge_recall, kept, one.normalized_probability, one.rouge_recall, kept}),
              1e-12);
  const auto eval = tofu_eval_json(report), summary = tofu_summary_json(report);
  EXPECT_EQ(eval["forget_truth_ratio"]["value_by_index"]["1"]["score"], one.truth_ratio);
  EXPECT_EQ(summary["model_utility"], report.model_utility);
  EXPECT_EQ(summary["forget_quality"], *report.forget_quality);
  for (const char* name :
       {"forget_Q_A_Prob", "forget_Q_A_ROUGE", "retain_Truth_Ratio", "ra_Q_A_Prob_normalised", "wf_Q_A_ROUGE",
        "extraction_strength", "exact_memorization"})
    EXPECT_TRUE(summary.contains(name)) << name;
  std::ofstream(folder / "TOFU_EVAL.json") << eval.dump();
  EXPECT_EQ(read_truth_ratios(folder / "TOFU_EVAL.json"),
            (std::vector<double>{one.truth_ratio, one.truth_ratio}));
  std::ofstream(folder / "bad.json") << "{}";
  EXPECT_THROW(read_truth_ratios(folder / "bad.json"), Error);
}

TEST(TofuFilesTest, ThePublishedSetsAreReadWhole) {
  EFFACE_NEEDS_SHARED_DATA(data);
  const std::map<std::string, std::pair<size_t, size_t>> sizes = {{"forget10_perturbed", {400, 5}},
                                                                  {"retain_perturbed", {400, 5}},
                                                                  {"real_authors_perturbed", {100, 3}},
                                                                  {"world_facts_perturbed", {117, 3}}};
  for (const auto& [name, size] : sizes) {
    const auto questions = read_tofu(data / "tofu" / (name + ".json"));
    EXPECT_EQ(questions.size(), size.first) << name;
    for (const auto& question : questions) {
      EXPECT_GE(question.perturbed_answers.size(), size.second) << name;
      EXPECT_FALSE(question.paraphrased_answer.empty());
    }
  }
}

}  // namespace
}  // namespace efface
