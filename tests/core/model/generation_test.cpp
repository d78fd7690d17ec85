// Greedy generation with a cache is the argmax of the full forward pass, token by token; a sampled one
// follows the softmax and repeats with its seed.
#include <ATen/core/grad_mode.h>

#include <limits>

#include "core/model/sampling.hpp"
#include "distributed/error.hpp"
#include "tests/core/model/small_model.hpp"

namespace efface::testing {
namespace {

using Ids = std::vector<int64_t>;

/// No cache, one prompt at a time.
Ids continue_by_full_forward(const Transformer& model, Ids ids, int64_t max_new_tokens,
                             const Ids& stops = {}) {
  const at::NoGradGuard no_grad;
  Ids answer;
  while (static_cast<int64_t>(answer.size()) < max_new_tokens) {
    const at::Tensor hidden = model.forward(make_batch({{ids, static_cast<int64_t>(ids.size())}}));
    const int64_t next = model.logits(hidden.narrow(0, hidden.size(0) - 1, 1)).argmax(1).item<int64_t>();
    if (std::find(stops.begin(), stops.end(), next) != stops.end()) break;
    answer.push_back(next);
    ids.push_back(next);
  }
  return answer;
}

const std::vector<Ids> kPrompts = {{1, 5, 9}, {3}, {2, 4, 6, 8, 10, 12, 14, 16, 18}, {50, 60, 70}, {90, 2}};

TEST(Generation, IsTheArgmaxOfTheFullForwardPass) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21, {at::kDouble});
  const auto answers = model.generate(kPrompts, 12);
  ASSERT_EQ(answers.size(), kPrompts.size());
  for (size_t i = 0; i < kPrompts.size(); ++i)
    EXPECT_EQ(answers[i], continue_by_full_forward(model, kPrompts[i], 12)) << "prompt " << i;
}

TEST(Generation, StopsBeforeAnyEndOfSequenceIdAndOthersGoOn) {
  ModelConfig config = small_config(1);
  const Transformer free = Transformer::random(config, single_mesh(), 21, {at::kDouble});
  const auto unstopped = free.generate(kPrompts, 12);
  config.eos_token_ids = {unstopped[0][4], unstopped[2][7]};
  const Transformer model = Transformer::random(config, single_mesh(), 21, {at::kDouble});
  const auto answers = model.generate(kPrompts, 12);
  EXPECT_LE(answers[0].size(), 4u);
  EXPECT_LE(answers[2].size(), 7u);
  for (size_t i = 0; i < kPrompts.size(); ++i)
    EXPECT_EQ(answers[i], continue_by_full_forward(model, kPrompts[i], 12, config.eos_token_ids))
        << "prompt " << i;
}

TEST(Generation, AppliesAdaptersWhileTheyAreEnabled) {
  Transformer model = Transformer::random(small_config(1), single_mesh(), 21, {at::kDouble});
  const auto plain = model.generate(kPrompts, 6);
  attach_adapters(model, {Projection::v, Projection::down});
  const auto adapted = model.generate(kPrompts, 6);
  EXPECT_NE(adapted, plain);
  EXPECT_EQ(adapted[2], continue_by_full_forward(model, kPrompts[2], 6));
  model.enable_adapters(false);
  EXPECT_EQ(model.generate(kPrompts, 6), plain);
}

TEST(Generation, APromptThatLeavesNoPositionsForTheAnswerIsRefused) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21);  // 64 positions
  EXPECT_NO_THROW(model.generate({Ids(60, 1)}, 4));
  EXPECT_THROW(model.generate({Ids(60, 1)}, 5), Error);
}

TEST(Sampling, ASeedRepeatsAndAnotherOneDiffers) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21, {at::kDouble});
  const auto first = model.generate(kPrompts, 12, {1.0, 0, 5});
  EXPECT_EQ(model.generate(kPrompts, 12, {1.0, 0, 5}), first);
  EXPECT_NE(model.generate(kPrompts, 12, {1.0, 0, 6}), first);
  const auto longer = model.generate(kPrompts, 15, {1.0, 0, 5});
  for (size_t i = 0; i < first.size(); ++i)
    EXPECT_EQ(Ids(longer[i].begin(), longer[i].begin() + 12), first[i]) << "prompt " << i;
}

TEST(Sampling, EqualPromptsAreSampledApart) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21, {at::kDouble});
  const auto answers = model.generate({{1, 5, 9}, {1, 5, 9}}, 12, {1.0, 0, 5});
  EXPECT_NE(answers[0], answers[1]);
}

TEST(Sampling, TemperatureZeroIsGreedyAndSoIsTheMostProbableTokenAlone) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21, {at::kDouble});
  const auto greedy = model.generate(kPrompts, 12);
  EXPECT_EQ(model.generate(kPrompts, 12, {0, 3, 5}), greedy);
  EXPECT_EQ(model.generate(kPrompts, 12, {1.0, 1, 5}), greedy);
  EXPECT_NE(model.generate(kPrompts, 12, {1.0, 0, 5}), greedy);
}

TEST(Sampling, FollowsTheSoftmaxOfTheMostProbableTokens) {
  const auto logits = at::tensor({1.0, -2.0, 0.5, 3.0, 2.0}, at::kDouble);
  constexpr int64_t draws = 1000;
  const auto uniform = (at::arange(draws, at::kDouble) + 0.5) / static_cast<double>(draws);
  const auto shares = [&](double temperature, int64_t top_k) {
    const auto ids = sample(logits.expand({draws, 5}), uniform, temperature, top_k);
    return at::bincount(ids, {}, 5).to(at::kDouble) / static_cast<double>(draws);
  };
  EXPECT_TRUE(at::allclose(shares(0.7, 0), at::softmax(logits / 0.7, 0), 0, 2e-3));
  constexpr double never = -std::numeric_limits<double>::infinity();
  const auto three = at::softmax(at::tensor({1.0, never, never, 3.0, 2.0}, at::kDouble) / 2, 0);
  EXPECT_TRUE(at::allclose(shares(2, 3), three, 0, 2e-3));
  EXPECT_EQ(shares(1e-300, 0)[3].item<double>(), 1) << "a small temperature does not overflow";
}

TEST(Generation, OfNothingIsNothing) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21);
  EXPECT_TRUE(model.generate({}, 5).empty());
  EXPECT_EQ(model.generate({{1, 2}}, 0), std::vector<Ids>(1));
}

}  // namespace
}  // namespace efface::testing
