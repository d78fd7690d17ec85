#include "core/evaluate/row_scores.hpp"

#include <gmock/gmock.h>

#include "tests/core/evaluate/tiny.hpp"

namespace efface {
namespace {

using testing::label_log_probabilities;
using testing::tiny_config;
using testing::tiny_tokenizer;
using testing::world_mesh;

class RowScoresTest : public ::testing::TestWithParam<bool> {
 protected:
  Tokenizer tokenizer_ = tiny_tokenizer();
  Transformer model_ = Transformer::random(tiny_config(tokenizer_), world_mesh(GetParam()), 5);
  std::vector<TokenRow> rows_ = {{tokenizer_.encode("The first row."), 4},
                                 {tokenizer_.encode("A"), 1},
                                 {tokenizer_.encode("A much longer row than the first one was"), 1},
                                 {tokenizer_.encode("The first row."), 4},
                                 {tokenizer_.encode("The first row."), 7}};
};

TEST_P(RowScoresTest, AreTheLogSoftmaxAtTheLabels) {
  const auto scores = score_rows(model_, rows_, 20);
  ASSERT_EQ(scores.size(), rows_.size());
  for (size_t r = 0; r < rows_.size(); ++r) {
    const auto expected = label_log_probabilities(model_, rows_[r]);
    ASSERT_EQ(scores[r].log_probabilities.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(scores[r].log_probabilities[i], expected[i], 1e-4);
    EXPECT_NEAR(scores[r].log_probability(), testing::sum(expected), 1e-3);
  }
}

TEST_P(RowScoresTest, DoNotDependOnHowManyTokensGoThroughAtOnce) {
  const auto few = score_rows(model_, rows_, 1), many = score_rows(model_, rows_, 10000);
  for (size_t r = 0; r < rows_.size(); ++r) {
    EXPECT_NEAR(few[r].log_probability(), many[r].log_probability(), 1e-4);
    EXPECT_EQ(few[r].is_argmax, many[r].is_argmax);
  }
}

TEST_P(RowScoresTest, GreedyContinuationIsTheArgmaxAndAChangedOneIsNot) {
  const auto prompt = tokenizer_.encode("Once upon");
  const auto answer = generate_answers(model_, {prompt}, 6, -1, 4).front();
  ASSERT_EQ(answer.size(), 6u);
  TokenRow greedy{prompt, static_cast<int64_t>(prompt.size())};
  greedy.ids.insert(greedy.ids.end(), answer.begin(), answer.end());
  TokenRow changed = greedy;
  changed.ids.back() = (changed.ids.back() + 1) % tokenizer_.vocab_size();
  const auto scores = score_rows(model_, {greedy, changed}, 100);
  EXPECT_TRUE(scores[0].all_argmax());
  EXPECT_FALSE(scores[1].all_argmax());
  EXPECT_TRUE(scores[1].begins_with_argmax(5));
}

TEST_P(RowScoresTest, ProgressEndsAtTheNumberOfDistinctRowsOfTheRank) {
  int64_t done = 0, total = -1;
  score_rows(model_, rows_, 1, [&](int64_t d, int64_t t) { done = d, total = t; });
  EXPECT_EQ(done, total);
  EXPECT_EQ(model_.mesh().data.all_reduce(total), 4);  // two of the five are equal
}

TEST_P(RowScoresTest, NoRowsGiveNoScores) {
  EXPECT_TRUE(score_rows(model_, {}, 100).empty());
  EXPECT_EQ(perplexity(model_, {}, 100), 0);
}

TEST_P(RowScoresTest, PerplexityIsOverAllTokens) {
  const auto first = label_log_probabilities(model_, rows_[0]),
             second = label_log_probabilities(model_, rows_[2]);
  const double mean =
      (testing::sum(first) + testing::sum(second)) / static_cast<double>(first.size() + second.size());
  EXPECT_NEAR(perplexity(model_, {rows_[0], rows_[2]}, 20), std::exp(-mean), 1e-3);
}

TEST_P(RowScoresTest, AnswersEndBeforeTheStopIdAndComeInTheOrderOfThePrompts) {
  std::vector<std::vector<int64_t>> prompts;
  for (const char* text : {"a", "Bc", "def 1", "Who?", "x y z"}) prompts.push_back(tokenizer_.encode(text));
  const auto all = generate_answers(model_, prompts, 5, -1, 2);
  const auto cut = generate_answers(model_, prompts, 5, all[3][2], 2);
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(all[i], model_.generate({prompts[i]}, 5).front());
    std::vector<int64_t> expected;
    for (int64_t id : all[i]) {
      if (id == all[3][2]) break;
      expected.push_back(id);
    }
    EXPECT_EQ(cut[i], expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Meshes, RowScoresTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "tensor" : "data"; });

}  // namespace
}  // namespace efface
