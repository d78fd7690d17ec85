#include <gmock/gmock.h>

#include "core/subspace/projector.hpp"
#include "distributed/error.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using ::testing::HasSubstr;

const at::Tensor kSpectrum = at::tensor({5.0, 3.0, 1.0, 0.6, 0.4}, at::kDouble);  // trace 10

int64_t rank_by(RankRule::Kind kind, double value) { return choose_rank(kSpectrum, {kind, value}, "3.down"); }

std::string refusal(RankRule::Kind kind, double value) {
  try {
    rank_by(kind, value);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::numeric);
    return error.what();
  }
  return "";
}

TEST(ChooseRank, EnergyIsTheSmallestRankThatHoldsTheShare) {
  EXPECT_EQ(rank_by(RankRule::Kind::energy, 0.5), 1);
  EXPECT_EQ(rank_by(RankRule::Kind::energy, 0.51), 2);
  EXPECT_EQ(rank_by(RankRule::Kind::energy, 0.9), 3);
  EXPECT_EQ(rank_by(RankRule::Kind::energy, 0.95), 4);
}

TEST(ChooseRank, ThresholdsNullWhatIsStrictlyBelow) {
  EXPECT_EQ(rank_by(RankRule::Kind::threshold, 0.6), 4);
  EXPECT_EQ(rank_by(RankRule::Kind::threshold, 0.61), 3);
  EXPECT_EQ(rank_by(RankRule::Kind::relative, 0.2), 3);
  EXPECT_EQ(rank_by(RankRule::Kind::relative, 0.21), 2);
  EXPECT_EQ(rank_by(RankRule::Kind::k, 2), 2);
}

TEST(ChooseRank, RefusesAnEmptyNullSpaceWithModuleAndSpectrum) {
  for (const auto& what : {refusal(RankRule::Kind::energy, 1.0), refusal(RankRule::Kind::threshold, 0.1),
                           refusal(RankRule::Kind::k, 5)}) {
    EXPECT_THAT(what, HasSubstr("3.down"));
    EXPECT_THAT(what, HasSubstr("no direction to train"));
    EXPECT_THAT(what, HasSubstr("largest 5 (50% of the trace)"));
    EXPECT_THAT(what, HasSubstr("0.9: 3"));
  }
}

TEST(ChooseRank, RefusesARetainSubspaceOfNothing) {
  EXPECT_THAT(refusal(RankRule::Kind::threshold, 6), HasSubstr("protects nothing"));
  EXPECT_THAT(refusal(RankRule::Kind::k, 0), HasSubstr("protects nothing"));
  EXPECT_THROW(choose_rank(at::zeros({4}, at::kDouble), {}, "0.qkv"), Error);
}

TEST(ChooseRank, NegativeRoundingOfASingularMatrixCountsAsZero) {
  const at::Tensor values = at::tensor({1.0, 1e-17, -1e-17, -3e-17}, at::kDouble);
  EXPECT_EQ(choose_rank(values, {RankRule::Kind::energy, 1.0}, "0.o"), 1);
}

TEST(SubspaceWarnings, TellOfMassiveActivationsTinyRanksAndFewTokens) {
  EXPECT_TRUE(subspace_warnings(0.5, 5, 3, 1000).empty());
  EXPECT_THAT(subspace_warnings(0.5, 5, 3, 99),
              ::testing::ElementsAre(HasSubstr("tokens per input dimension")));
  EXPECT_THAT(subspace_warnings(0.5, 5, 2, 1000), ::testing::ElementsAre(HasSubstr("only 2 of 5")));
  EXPECT_THAT(subspace_warnings(0.99, 5, 3, 1000), ::testing::ElementsAre(HasSubstr("99% of the trace")));
}

TEST(ChooseRank, ByHeldOutEnergyCountsThatEnergyInTheOrderOfTheEigenvalues) {
  const at::Tensor values = at::tensor({8.0, 4.0, 2.0, 1.0}, at::kDouble);
  const at::Tensor heldout = at::tensor({1.0, 6.0, 2.0, 1.0}, at::kDouble);
  const auto rank = [&](double share) {
    return choose_rank(values, {RankRule::Kind::heldout, share}, "0.qkv", heldout);
  };
  EXPECT_EQ(rank(0.05), 1);
  EXPECT_EQ(rank(0.5), 2);
  EXPECT_EQ(rank(0.8), 3);
  EXPECT_THROW(rank(0.95), Error) << "nothing is left to train in";
  EXPECT_THROW(choose_rank(values, {RankRule::Kind::heldout, 0.5}, "0.qkv"), Error) << "no held-out tokens";
}

}  // namespace
}  // namespace efface
