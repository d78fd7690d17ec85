// Layers in groups: the same bits as all layers at once, on any mesh, within the bytes that were promised.
#include "core/subspace/streamed_covariance.hpp"

#include <gmock/gmock.h>

#include <algorithm>

#include "distributed/error.hpp"
#include "tests/core/model/small_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

constexpr int kLayers = 4;

class StreamedCovariance : public ::testing::TestWithParam<bool> {
 protected:
  StreamedCovariance() {
    for (int layer = 0; layer < kLayers; ++layer)
      for (const Input input : kInputs) inputs_.push_back({layer, input});
    for (int pass = 0; pass < 3; ++pass) {
      RetainPass& mine = passes_.emplace_back();
      mine.heldout = pass == 2;
      for (int64_t row = mesh_.data_rank(); row < (pass == 1 ? 1 : 5); row += mesh_.data_size()) {
        TokenRow& tokens = mine.rows.emplace_back();  // in the second pass some data ranks have none
        for (int64_t i = 0; i < 3 + (7 * row + pass) % 11; ++i)
          tokens.ids.push_back((31 * row + i * i + pass) % config_.vocab_size);
        tokens.prompt_length = static_cast<int64_t>(tokens.ids.size());
      }
    }
    options_.norm_cap = 1.2;
    options_.cap_sample = 11;
    memory_ = covariance_memory(config_, mesh_, inputs_, options_, true, 60, at::kFloat);
  }
  std::vector<Covariance> stream(const std::vector<std::vector<InputId>>& groups) const {
    const Transformer model = Transformer::random(config_, mesh_, 5);
    std::vector<Covariance> all;
    stream_covariances(model, groups, passes_, options_, scratch_.path() / "boundary",
                       [&](Covariance& covariance) { all.push_back(std::move(covariance)); });
    return all;
  }

  static ModelConfig four_layers() {
    ModelConfig config = small_config(GetParam() ? world().size() : 1);
    config.layers = kLayers;
    return config;
  }

  const ModelConfig config_ = four_layers();
  const Mesh mesh_ =
      GetParam() ? make_mesh(world(), world().size(), 1) : make_mesh(world(), 1, world().size());
  const TemporaryFolder scratch_{TemporaryFolder::Kind::shared};
  std::vector<InputId> inputs_;
  std::vector<RetainPass> passes_;
  CovarianceOptions options_;
  CovarianceMemory memory_;
};
INSTANTIATE_TEST_SUITE_P(TensorOrData, StreamedCovariance, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Tensor" : "Data"; });

TEST_P(StreamedCovariance, IsTheSameWhateverTheGroups) {
  const auto whole = stream(groups_within(memory_, inputs_, memory_.all()));
  ASSERT_EQ(whole.size(), inputs_.size());
  for (const int layers : {1, 3}) {
    const auto groups =
        groups_within(memory_, inputs_, memory_.shared + layers * memory_.of_layers.front().second);
    ASSERT_EQ(groups.size(), layers == 1 ? 4u : 2u);
    const auto streamed = stream(groups);
    ASSERT_EQ(streamed.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_EQ(streamed[i].id, whole[i].id);
      EXPECT_EQ(streamed[i].tokens, whole[i].tokens);
      EXPECT_EQ(streamed[i].norm_cap, whole[i].norm_cap) << input_name(whole[i].id);
      EXPECT_TRUE(at::equal(streamed[i].matrix.local, whole[i].matrix.local)) << input_name(whole[i].id);
      EXPECT_TRUE(at::equal(streamed[i].heldout.local, whole[i].heldout.local)) << input_name(whole[i].id);
      EXPECT_TRUE(at::equal(streamed[i].sink_mean, whole[i].sink_mean)) << input_name(whole[i].id);
    }
    world().barrier();
    EXPECT_FALSE(std::filesystem::exists(scratch_.path() / "boundary")) << "boundary states are left behind";
    world().barrier();
  }
}

TEST_P(StreamedCovariance, MemoryIsThatOfItsMatricesAndBuffers) {
  const int64_t h = config_.hidden_size, inner = config_.intermediate_size, t = mesh_.tensor_size();
  const auto block = [&](int64_t n) { return (n + t - 1) / t * n; };
  const int64_t matrices = 2 * 8 * (3 * block(h) + block(inner));
  const int64_t waiting = 2 * 4 * 1024 * (3 * h + inner), sample = (11 + 60) * inner * 4;
  ASSERT_EQ(memory_.of_layers.size(), static_cast<size_t>(kLayers));
  for (const auto& [layer, bytes] : memory_.of_layers) EXPECT_EQ(bytes, matrices + waiting + sample) << layer;
  EXPECT_EQ(memory_.all(), memory_.shared + kLayers * (matrices + waiting + sample));
}

TEST_P(StreamedCovariance, ABudgetBelowOneLayerIsRefusedWithWhatWouldDo) {
  try {
    groups_within(memory_, inputs_, memory_.shared);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::recipe);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("the covariances of layer 0 alone take"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("nullspace.memory"));
  }
}

TEST(EvenlyDealt, GivesDataRanksTheSameTokensAndLeavesTheCapsSampleAlone) {
  std::vector<TokenRow> rows;
  for (int64_t row = 0; row < 300; ++row) {
    TokenRow& tokens = rows.emplace_back();
    tokens.ids.assign(row % 2 == 0 ? 256 : 20 + row % 60,
                      row);  // a window, and what was left of its document
  }
  const auto dealt = evenly_dealt(rows, 4096);
  ASSERT_EQ(dealt.size(), rows.size());
  int64_t sample = 0;
  for (size_t row = 0; sample < 4096; ++row) {
    EXPECT_EQ(dealt[row].ids, rows[row].ids);
    sample += static_cast<int64_t>(rows[row].ids.size()) - 1;
  }
  std::vector<int64_t> seen(rows.size(), 0);
  for (const auto& row : dealt) ++seen[static_cast<size_t>(row.ids[0])];
  EXPECT_EQ(seen, std::vector<int64_t>(rows.size(), 1)) << "each row once";
  for (const size_t ranks : {2u, 4u}) {
    std::vector<double> tokens(ranks, 0), before(ranks, 0);
    for (size_t row = 0; row < rows.size(); ++row) {
      tokens[row % ranks] += static_cast<double>(dealt[row].ids.size());
      before[row % ranks] += static_cast<double>(rows[row].ids.size());
    }
    const auto most = [](const std::vector<double>& load) {
      return *std::max_element(load.begin(), load.end());
    };
    double all = 0;
    for (double load : tokens) all += load;
    EXPECT_GT(most(before) * static_cast<double>(ranks), 1.6 * all) << "the rows as they come are uneven";
    EXPECT_LT(most(tokens) * static_cast<double>(ranks), 1.15 * all) << ranks;
  }
}

}  // namespace
}  // namespace efface::testing
