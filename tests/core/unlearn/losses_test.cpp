#include "core/unlearn/losses.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/unlearn/data_order.hpp"
#include "core/unlearn/method.hpp"
#include "distributed/error.hpp"
#include "tests/core/unlearn/tiny.hpp"

namespace efface {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST(Losses, RowMeanCountsTheFirstLabelByItsWeight) {
  const auto rows = at::tensor({0, 0, 0, 1}, at::kLong);
  const auto values = at::tensor({3.0, 1.0, 2.0, 5.0}, at::kDouble);
  const auto means = row_sums(values * mean_shares(rows, {4.0, 7.0}, values.options()), rows, 2);
  EXPECT_NEAR(means[0].item<double>(), (4 * 3.0 + 1.0 + 2.0) / 6, 1e-12);
  EXPECT_NEAR(means[1].item<double>(), 5.0, 1e-12);
}

TEST(Losses, NpoAtTheReferenceIsTwoOverBetaTimesLogTwo) {
  const auto log_p = at::tensor({-1.5, -40.0}, at::kDouble);
  const auto loss = npo_loss(log_p, log_p, 0.1);
  EXPECT_NEAR(loss[0].item<double>(), 20 * std::log(2.0), 1e-12);
  EXPECT_NEAR(loss[1].item<double>(), 20 * std::log(2.0), 1e-12);
}

TEST(Losses, NpoAndSimNpoFollowTheirFormulas) {
  const auto x = at::tensor({-2.0}, at::kDouble), reference = at::tensor({-3.5}, at::kDouble);
  EXPECT_NEAR(npo_loss(x, reference, 0.7).item<double>(), -2 / 0.7 * std::log(sigmoid(-0.7 * 1.5)), 1e-12);
  const auto nll = at::tensor({1.25}, at::kDouble);
  EXPECT_NEAR(sim_npo_loss(nll, 2.5, 0.5).item<double>(), -2 / 2.5 * std::log(sigmoid(2.5 * 0.75)), 1e-12);
}

TEST(Losses, DpoFollowsItsFormulaAndIsNpoWhereTheWinnerStaysWhereItWas) {
  const auto chosen = at::tensor({0.4}, at::kDouble), rejected = at::tensor({-1.1}, at::kDouble);
  EXPECT_NEAR(dpo_loss(chosen, rejected, 0.7).item<double>(), -2 / 0.7 * std::log(sigmoid(0.7 * 1.5)), 1e-12);
  const auto log_p = at::tensor({-5.0}, at::kDouble), reference = at::tensor({-3.5}, at::kDouble);
  EXPECT_NEAR(dpo_loss(at::zeros({1}, at::kDouble), log_p - reference, 0.7).item<double>(),
              npo_loss(log_p, reference, 0.7).item<double>(), 1e-12);
}

TEST(Losses, UnlikelihoodIsFiniteWhereTheModelIsCertain) {
  auto log_p = at::tensor({0.0, std::log(0.25)}, at::kDouble).requires_grad_();
  const auto loss = unlikelihood_loss(log_p);
  EXPECT_NEAR(loss[1].item<double>(), -std::log(0.75), 2e-6);
  loss.sum().backward();
  EXPECT_TRUE(at::isfinite(log_p.grad()).all().item<bool>());
  EXPECT_GT(log_p.grad()[0].item<double>(), 1e5);
}

TEST(Losses, DeviationIsOneMinusTheCosineAndKeepsSmallOnes) {
  const auto h0 = philox_normal({1, "h0", ""}, 6, 32), noise = philox_normal({1, "noise", ""}, 6, 32);
  const auto cosine = [](const at::Tensor& a, const at::Tensor& b) {
    return (a * b).sum(-1) / (a.norm(2, -1) * b.norm(2, -1));
  };
  const auto far = h0 + noise;
  EXPECT_LT(testing::relative_error(deviation(far, h0), 1 - cosine(far, h0)), 1e-5);
  const auto near = h0 + noise * 1e-5;
  const auto exact = deviation(near.to(at::kDouble), h0.to(at::kDouble));
  EXPECT_LT(exact.max().item<double>(), 1e-8);
  EXPECT_LT(testing::relative_error(deviation(near, h0), exact), 1e-2);
  EXPECT_GT(testing::relative_error(1 - cosine(near, h0), exact), 0.5)
      << "the naive form has lost its digits";
}

TEST(DataOrder, AnEpochDrawsEachRecordOnceAndOneOfItsWordings) {
  const auto pool = testing::tiny_pool(96);
  std::map<uint64_t, int> drawn;
  for (int64_t step = 0; step < 5; ++step)
    for (const TrainingRow& row : global_batch(pool, {{RowRole::forget, 2}}, 11, step))
      drawn[row.tokens.row_id()]++;
  int total = 0;
  for (const auto& wordings : pool.groups.at(RowRole::forget)) {
    int of_record = 0;
    for (const TrainingRow& row : wordings) of_record += drawn[row.tokens.row_id()];
    EXPECT_EQ(of_record, 2) << "10 draws are two epochs of 5 records";
    total += of_record;
  }
  EXPECT_EQ(total, 10);
}

TEST(DataOrder, DealingBalancesTokensAndKeepsEveryRowOnce) {
  const std::vector<int64_t> tokens = {10, 3, 3, 3, 9, 1, 1};
  const auto dealt = deal_by_tokens(tokens, 2);
  std::vector<int64_t> load(2, 0);
  std::vector<size_t> all;
  for (int part = 0; part < 2; ++part)
    for (size_t row : dealt[part]) {
      load[part] += tokens[row];
      all.push_back(row);
    }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, (std::vector<size_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(load[0], 15);
  EXPECT_EQ(load[1], 15);
  EXPECT_TRUE(deal_by_tokens({5}, 3)[1].empty());
}

TEST(DataOrder, PassesHoldAtMostTheTokensAsked) {
  std::vector<TrainingRow> rows;
  for (int64_t length : {4, 4, 9, 2}) rows.push_back({testing::random_row(length, 2, length - 2, 50)});
  const auto passes = split_passes(rows, 8);
  ASSERT_EQ(passes.size(), 3u);
  EXPECT_EQ(passes[0].size(), 2u);
  EXPECT_EQ(passes[1].size(), 1u) << "a row longer than the limit goes alone";
  EXPECT_EQ(split_passes(rows, 0).size(), 1u);
  EXPECT_TRUE(split_passes({}, 8).empty());
}

TEST(Registry, UnknownWordsAreAnsweredWithTheNearestRightOne) {
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorClass::recipe);
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NE(message([] { find_method("NSRV"); }).find("\"NSRU\""), std::string::npos);
  EXPECT_NE(message([] {
              make_method("NSRU", {{"safe_wieght", 1}});
            }).find("\"safe_weight\""),
            std::string::npos);
  EXPECT_NE(message([] {
              make_method("NSRU", {}, {{"suppression", "nop"}});
            }).find("\"npo\""),
            std::string::npos);
  EXPECT_NE(message([] { make_method("KUDA"); }).find("window"), std::string::npos);
}

TEST(Registry, EveryArgumentOfEveryMethodIsExplained) {
  for (const MethodDescription& method : methods()) {
    EXPECT_FALSE(method.summary.empty()) << method.name;
    for (const auto& entry : method.defaults) EXPECT_TRUE(method.help.contains(entry.first)) << entry.first;
    for (const auto& entry : method.choices) {
      EXPECT_TRUE(method.help.contains(entry.first)) << entry.first;
      EXPECT_TRUE(method.choices_default.contains(entry.first)) << entry.first;
    }
    EXPECT_EQ(make_method(method.name, {}, {}, {1, 3})->name(), method.name);
  }
}

}  // namespace
}  // namespace efface
