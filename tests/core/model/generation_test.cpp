// Greedy generation with a cache is the argmax of the full forward pass, token by token.
#include <ATen/core/grad_mode.h>

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

TEST(Generation, OfNothingIsNothing) {
  const Transformer model = Transformer::random(small_config(1), single_mesh(), 21);
  EXPECT_TRUE(model.generate({}, 5).empty());
  EXPECT_EQ(model.generate({{1, 2}}, 0), std::vector<Ids>(1));
}

}  // namespace
}  // namespace efface::testing
