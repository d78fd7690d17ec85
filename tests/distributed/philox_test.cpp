#include "distributed/philox.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "distributed/philox_block.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

const PhiloxKey kKey{42, "lora_a", "model.layers.3.self_attn.q_proj"};

TEST(Philox, MatchesThePublishedKnownAnswers) {
  // kat_vectors of Random123, philox4x32 10.
  EXPECT_EQ(philox_block({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox_block({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox_block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, ASliceIsThatPartOfTheGlobalMatrix) {
  for (auto draw : {philox_normal, philox_uniform}) {
    const auto whole = draw(kKey, 23, 37, 0, 0, -1);
    for (int64_t row : {0, 1, 7, 22})
      for (int64_t column : {0, 1, 2, 3, 5, 36}) {
        const int64_t rows = 23 - row, columns = 37 - column;
        const auto slice = draw(kKey, rows, columns, row, column, 37);
        EXPECT_TRUE(at::equal(slice, whole.narrow(0, row, rows).narrow(1, column, columns)))
            << row << ", " << column;
      }
    EXPECT_TRUE(at::equal(draw(kKey, 2, 2, 3, 4, 37), whole.narrow(0, 3, 2).narrow(1, 4, 2)));
  }
}

TEST(Philox, ASliceOutsideItsMatrixIsRefused) { EXPECT_ANY_THROW(philox_normal(kKey, 1, 3, 0, 2, 4)); }

TEST(Philox, NormalsHaveTheMomentsOfTheStandardNormal) {
  const int64_t n = 1'000'000;
  const auto x = philox_normal(kKey, 1000, 1000).to(at::kDouble).flatten();
  const double standard_error = 1 / std::sqrt(static_cast<double>(n));
  EXPECT_NEAR(x.mean().item<double>(), 0, 5 * standard_error);
  EXPECT_NEAR(x.pow(2).mean().item<double>(), 1, 5 * std::sqrt(2.) * standard_error);
  EXPECT_NEAR(x.pow(3).mean().item<double>(), 0, 5 * std::sqrt(15.) * standard_error);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 5 * std::sqrt(96.) * standard_error);
  // Neighbours come from one Box-Muller pair: their product and that of their squares must not correlate.
  const auto even = x.slice(0, 0, n, 2), odd = x.slice(0, 1, n, 2);
  EXPECT_NEAR((even * odd).mean().item<double>(), 0, 5 * std::sqrt(2.) * standard_error);
  EXPECT_NEAR((even.square() * odd.square()).mean().item<double>(), 1,
              5 * std::sqrt(2 * 8.) * standard_error);
  EXPECT_NEAR((x.abs() > 3).to(at::kDouble).mean().item<double>(), 0.0026998, 5 * 0.052 * standard_error);
}

TEST(Philox, UniformsFillTheHalfOpenUnitInterval) {
  const auto u = philox_uniform(kKey, 1000, 1000).to(at::kDouble);
  EXPECT_GE(u.min().item<double>(), 0);
  EXPECT_LT(u.max().item<double>(), 1);
  const auto counts = at::histc(u, 16, 0, 1);
  const double expected = 1e6 / 16;
  const double chi_squared = ((counts - expected).square() / expected).sum().item<double>();
  EXPECT_LT(chi_squared, 50);  // 15 degrees of freedom: beyond it with probability 1e-5
}

TEST(Philox, SeedPurposeAndNameEachGiveOtherNumbers) {
  const auto reference = philox_normal(kKey, 4, 4);
  EXPECT_TRUE(at::equal(reference, philox_normal({42, "lora_a", "model.layers.3.self_attn.q_proj"}, 4, 4)));
  EXPECT_FALSE(at::equal(reference, philox_normal({43, kKey.purpose, kKey.name}, 4, 4)));
  EXPECT_FALSE(
      at::equal(reference, philox_normal({42 + (uint64_t{1} << 32), kKey.purpose, kKey.name}, 4, 4)));
  EXPECT_FALSE(at::equal(reference, philox_normal({42, "lora_b", kKey.name}, 4, 4)));
  EXPECT_FALSE(at::equal(reference, philox_normal({42, kKey.purpose, "model.layers.4"}, 4, 4)));
  EXPECT_FALSE(at::equal(philox_normal({1, "ab", "c"}, 4, 4), philox_normal({1, "a", "bc"}, 4, 4)));
}

TEST(Philox, PermutationHoldsEachIndexOnceAndSpreadsThem) {
  for (int64_t n : {0, 1, 2, 7, 1000}) {
    auto order = philox_permutation({7, "batch_order", "0"}, n);
    std::sort(order.begin(), order.end());
    std::vector<int64_t> all(static_cast<size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(order, all);
  }
  EXPECT_NE(philox_permutation({7, "batch_order", "0"}, 1000),
            philox_permutation({7, "batch_order", "1"}, 1000));
  // All 6 orders of 3 are equally frequent.
  std::map<std::vector<int64_t>, int> seen;
  for (uint64_t seed = 0; seed < 6000; ++seed) ++seen[philox_permutation({seed, "batch_order", ""}, 3)];
  EXPECT_EQ(seen.size(), 6U);
  for (const auto& [order, count] : seen) EXPECT_NEAR(count, 1000, 150);
}

TEST(Philox, TenMillionNormalsTakeNoMoreThanSeconds) {
  const auto begin = std::chrono::steady_clock::now();
  philox_normal(kKey, 1000, 10'000);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  RecordProperty("seconds", std::to_string(seconds));
  EXPECT_LT(seconds, 3);
}

}  // namespace
}  // namespace efface
