#include "core/evaluate/fact_probes.hpp"

#include <gmock/gmock.h>

#include "distributed/error.hpp"
#include "tests/core/evaluate/tiny.hpp"

namespace efface {
namespace {

using testing::label_log_probabilities;
using testing::tiny_config;
using testing::tiny_tokenizer;
using testing::world_mesh;

Record record(const std::string& question, const std::string& answer) {
  Record result;
  result.question = question;
  result.answer = answer;
  return result;
}

class FactProbesTest : public ::testing::Test {
 protected:
  ProbeReport probe(const std::vector<ProbeGroup>& groups, const ProbeOptions& options = {}) const {
    return run_probes(model_, tokenizer_, chat_, groups, {}, options);
  }
  /// What the model says after `question`, as text that is tokenised back to the same ids.
  std::string greedy(const std::string& question, int64_t tokens) const {
    return tokenizer_.decode(model_.generate({tokenizer_.encode(question)}, tokens).front());
  }
  double probability(const std::string& prompt, const std::string& answer) const {
    return std::exp(testing::sum(label_log_probabilities(model_, plain_row(tokenizer_, prompt, answer))));
  }

  Tokenizer tokenizer_ = tiny_tokenizer();
  ChatTemplate chat_ = ChatTemplate::named("none");
  Transformer model_ = Transformer::random(tiny_config(tokenizer_), world_mesh(), 5);
};

TEST_F(FactProbesTest, ProbabilityIsTheAnswersAfterItsPrefix) {
  Record fact = record("Where?", " Rome");
  fact.answer_prefix = "It is in";
  const auto scores = probe({{"retain", {fact}, false}}).scores;
  ASSERT_EQ(scores.size(), 1u);
  const double expected = probability("Where?It is in", " Rome");
  EXPECT_NEAR(scores.at("retain/trained").probability.at(0) / expected, 1, 1e-3);
}

TEST_F(FactProbesTest, ForgetGroupsAreAskedInThreeForms) {
  Record fact = record("Where?", "Rome");
  fact.paraphrases = {"In what city?", "not asked"};
  fact.rewordings = {"Say where", "Tell me", "not asked"};
  fact.bare_prompt = "It is in";
  const auto scores = probe({{"forget", {fact}, true}, {"retain", {fact}, false}}).scores;
  const auto& trained = scores.at("forget/trained");
  ASSERT_EQ(trained.probability.size(), 2u);
  EXPECT_NEAR(trained.probability[1] / probability("In what city?", "Rome"), 1, 1e-3);
  const auto& reworded = scores.at("forget/reworded");
  ASSERT_EQ(reworded.probability.size(), 2u);
  EXPECT_NEAR(reworded.probability[0] / probability("Say where", "Rome"), 1, 1e-3);
  const auto& bare = scores.at("forget/bare");
  ASSERT_EQ(bare.probability.size(), 1u);
  EXPECT_NEAR(bare.probability[0] / probability("It is in", " Rome"), 1, 1e-3);
  EXPECT_EQ(scores.at("retain/trained").probability.size(), 1u);
  EXPECT_FALSE(scores.contains("retain/reworded") || scores.contains("retain/bare"));
}

TEST_F(FactProbesTest, TheSafeResponseIsExactWhenItIsWhatTheModelSays) {
  Record says = record("Where?", "x"), differs = record("Where?", "x");
  says.safe_response = greedy("Where?", 8);
  differs.safe_response = says.safe_response;
  differs.safe_response.back() = differs.safe_response.back() == 'a' ? 'b' : 'a';
  const auto scores = probe({{"forget", {says, differs}, true}}).scores.at("forget/trained");
  EXPECT_EQ(scores.safe_exact, (std::vector<bool>{true, false}));
  EXPECT_EQ(scores.refuses, (std::vector<bool>{true, true}));  // both begin with the same three tokens
  EXPECT_EQ(scores.refuses_whole, (std::vector<bool>{true, false}));
  EXPECT_EQ(scores.safe_share(), 0.5);
  EXPECT_EQ(scores.refusal_share(), 1.0);
}

TEST_F(FactProbesTest, ARefusalIsSeenByItsFirstThreeTokens) {
  const std::vector<std::string> questions = {"Where?", "Who was it?", "12 times 4", "B", "qq qq"};
  ProbeOptions options;
  options.refusal_texts = {greedy("Who was it?", 3) + "zzz"};
  ProbeGroup group{"unseen", {}, false};
  for (const auto& question : questions) group.records.push_back(record(question, "x"));
  const auto scores = probe({group}, options).scores.at("unseen/trained");
  for (size_t i = 0; i < questions.size(); ++i)
    EXPECT_EQ(scores.refuses[i], greedy(questions[i], 3) == greedy("Who was it?", 3)) << questions[i];
  EXPECT_TRUE(scores.refuses[1]);
  EXPECT_TRUE(scores.safe_exact.empty());
}

TEST_F(FactProbesTest, AWholeRefusalIsTheCommonestTextSaidToItsEnd) {
  ProbeOptions options;
  const std::string said = greedy("Where?", 6);
  options.refusal_texts = {said + "no", said, said};  // one beginning, the second text is the commonest
  const ProbeGroup group{"unseen", {record("Where?", "x")}, false};
  EXPECT_EQ(probe({group}, options).scores.at("unseen/trained").refuses_whole, std::vector<bool>{true});
  options.refusal_texts = {said + "no"};
  const auto scores = probe({group}, options).scores.at("unseen/trained");
  EXPECT_EQ(scores.refuses, std::vector<bool>{true});
  EXPECT_EQ(scores.refuses_whole, std::vector<bool>{greedy("Where?", 8) == said + "no"});
}

TEST_F(FactProbesTest, WithoutRefusalsNothingIsCalledOne) {
  const auto scores = probe({{"unseen", {record("Who?", "x")}, false}}).scores.at("unseen/trained");
  EXPECT_TRUE(scores.refuses.empty());
  EXPECT_EQ(scores.refusal_share(), 0);
}

TEST_F(FactProbesTest, TheFirstTokenIsTheArgmaxWhenTheModelSaysIt) {
  const std::string said = greedy("Where?", 1);
  const auto scores =
      probe({{"g", {record("Where?", said + "."), record("Where?", said == "a" ? "b" : "a")}, false}}).scores;
  EXPECT_EQ(scores.at("g/trained").first_is_argmax, (std::vector<bool>{true, false}));
  EXPECT_EQ(scores.at("g/trained").argmax_share(), 0.5);
}

TEST_F(FactProbesTest, SamplesAreTheGreedyAnswersOfTheFirstRecords) {
  ProbeOptions options;
  options.samples = 2;
  options.sample_tokens = 7;
  const auto samples =
      probe({{"g", {record("Where?", "x"), record("Who?", "x"), record("Why?", "x")}, false}}, options)
          .samples;
  EXPECT_THAT(samples.at("g"), ::testing::ElementsAre(greedy("Where?", 7), greedy("Who?", 7)));
}

TEST_F(FactProbesTest, PerplexityIsThatOfTheRowsGiven) {
  const auto rows = text_windows(tokenizer_, "Some text that was held out.", 8);
  const ProbeReport report = run_probes(model_, tokenizer_, chat_, {}, rows, {});
  double total = 0, labels = 0;
  for (const TokenRow& row : rows) {
    total += testing::sum(label_log_probabilities(model_, row));
    labels += static_cast<double>(row.labels());
  }
  EXPECT_NEAR(report.perplexity, std::exp(-total / labels), 1e-3);
}

TEST(ProbeScoresTest, TheGeometricMeanFloorsWhatIsGone) {
  ProbeScores scores;
  scores.probability = {1e-2, 1e-20};
  EXPECT_NEAR(scores.geometric_mean(), 1e-5, 1e-10);
  EXPECT_NEAR(scores.arithmetic_mean(), 5e-3, 1e-10);
  EXPECT_EQ(ProbeScores{}.geometric_mean(), 0);
}

TEST(ProbeScoresTest, ForgettingIsComparedFactByFact) {
  ProbeScores before, after;
  before.probability = {0.8, 0.4, 0.5, 0.9};
  after.probability = {0.8e-3, 0.4e-2, 0.5e-1, 0.9};
  after.first_is_argmax = {false, false, false, true};
  const ForgettingRatio ratio = compare_forgetting(before, after);
  EXPECT_NEAR(ratio.median, 55, 1e-9);  // of 1000, 100, 10, 1
  EXPECT_NEAR(ratio.geometric, std::pow(10.0, 6.0 / 4), 1e-9);
  EXPECT_EQ(ratio.share_down_100x, 0.5);
  EXPECT_EQ(ratio.share_down_10x, 0.75);
  EXPECT_EQ(ratio.argmax_share_after, 0.25);
  after.probability.pop_back();
  EXPECT_THROW(compare_forgetting(before, after), Error);
}

}  // namespace
}  // namespace efface
