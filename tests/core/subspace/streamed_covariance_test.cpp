// Layers in groups: the same bits as all layers at once, on any mesh, within the bytes that were promised.
#include "core/subspace/streamed_covariance.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <iterator>

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
    StreamHooks hooks;
    hooks.take = [&](Covariance& covariance) { all.push_back(std::move(covariance)); };
    stream_covariances(model, groups, passes_, options_, scratch_.path() / "partial", hooks);
    return all;
  }

  bool goes_on_after(int stop, const std::vector<std::vector<InputId>>& groups, std::vector<Covariance>& all,
                     int& saves, const std::function<void()>& damage) const;

  static void expect_equal(const std::vector<Covariance>& some, const std::vector<Covariance>& whole) {
    ASSERT_EQ(some.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_EQ(some[i].id, whole[i].id);
      EXPECT_EQ(some[i].tokens, whole[i].tokens);
      EXPECT_EQ(some[i].norm_cap, whole[i].norm_cap) << input_name(whole[i].id);
      EXPECT_EQ(some[i].top_token_share, whole[i].top_token_share) << input_name(whole[i].id);
      EXPECT_TRUE(at::equal(some[i].matrix.local, whole[i].matrix.local)) << input_name(whole[i].id);
      EXPECT_TRUE(at::equal(some[i].heldout.local, whole[i].heldout.local)) << input_name(whole[i].id);
      EXPECT_TRUE(at::equal(some[i].sink_mean, whole[i].sink_mean)) << input_name(whole[i].id);
    }
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
    ASSERT_NO_FATAL_FAILURE(expect_equal(streamed, whole));
    world().barrier();
    EXPECT_FALSE(std::filesystem::exists(scratch_.path() / "partial")) << "boundary states are left behind";
    world().barrier();
  }
}

// Ends the stream at its `stop`-th chance, once every pass may save and once a group: then runs it again with
// the groups that are left, as a run does. True while there was such a chance.
bool StreamedCovariance::goes_on_after(int stop, const std::vector<std::vector<InputId>>& groups,
                                       std::vector<Covariance>& all, int& saves,
                                       const std::function<void()>& damage) const {
  struct Killed {};
  const Transformer model = Transformer::random(config_, mesh_, 5);
  std::vector<Covariance> group;
  int chance = 0;
  StreamHooks hooks;
  hooks.take = [&](Covariance& covariance) { group.push_back(std::move(covariance)); };
  hooks.group_done = [&] {
    if (chance++ == stop) throw Killed();  // before what was taken is safe
    std::move(group.begin(), group.end(), std::back_inserter(all));
    group.clear();
    if (chance++ == stop) throw Killed();
  };
  hooks.save_due = [] { return true; };
  hooks.saved = [&] {
    ++saves;
    if (chance++ == stop) throw Killed();
  };
  const auto left = [&] {
    std::vector<std::vector<InputId>> rest;
    for (const auto& inputs : groups)
      if (std::none_of(all.begin(), all.end(), [&](const auto& c) { return c.id == inputs.front(); }))
        rest.push_back(inputs);
    return rest;
  };
  const auto folder = scratch_.path() / ("stop-" + std::to_string(stop));
  try {
    stream_covariances(model, groups, passes_, options_, folder, hooks);
    return false;
  } catch (const Killed&) {
  }
  group.clear();
  world().barrier();
  if (damage) damage();
  stream_covariances(model, left(), passes_, options_, folder, hooks);
  return true;
}

TEST_P(StreamedCovariance, GoesOnAfterAKillWithTheSameBits) {
  const auto whole = stream(groups_within(memory_, inputs_, memory_.all()));
  for (const int layers : {4, 2}) {
    const auto groups =
        groups_within(memory_, inputs_, memory_.shared + layers * memory_.of_layers.front().second);
    int stops = 0;
    for (bool more = true; more; ++stops) {
      std::vector<Covariance> resumed;
      int saves = 0;
      more = goes_on_after(stops, groups, resumed, saves, {});
      ASSERT_NO_FATAL_FAILURE(expect_equal(resumed, whole)) << layers << " layers, stop " << stops;
      // What was done before the kill is not done again: each chance to save came once, in one run or the
      // other.
      const auto chances = static_cast<int>(groups.size() * (passes_.size() - 1));
      EXPECT_LE(saves, chances) << layers << " layers, stop " << stops;
    }
    EXPECT_EQ(stops, static_cast<int>(groups.size() * (passes_.size() + 1)) + 1);
  }
}

TEST_P(StreamedCovariance, WhatIsDamagedIsNotTakenUp) {
  const auto whole = stream(groups_within(memory_, inputs_, memory_.all()));
  const auto groups = groups_within(memory_, inputs_, memory_.shared + 2 * memory_.of_layers.front().second);
  for (const int stop : {0, 1, 3, 4}) {
    for (const std::string what : {"hidden-", "sums-", "manifest"}) {
      std::vector<Covariance> resumed;
      int saves = 0;
      goes_on_after(stop, groups, resumed, saves, [&] {
        if (world().rank() == 0)
          for (const auto& file :
               std::filesystem::directory_iterator(scratch_.path() / ("stop-" + std::to_string(stop))))
            if (file.path().filename().string().rfind(what, 0) == 0)
              std::filesystem::resize_file(file, file.file_size() / 2);
        world().barrier();
      });
      ASSERT_NO_FATAL_FAILURE(expect_equal(resumed, whole)) << what << ", stop " << stop;
    }
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

TEST_P(StreamedCovariance, GroupsAreOfWhatIsLeftAlone) {
  EXPECT_TRUE(groups_within(memory_, {}, memory_.all()).empty());
  const std::vector<InputId> left = {{1, Input::o}, {1, Input::down}, {3, Input::qkv}};
  EXPECT_EQ(groups_within(memory_, left, memory_.all()), std::vector<std::vector<InputId>>{left});
  const int64_t one_layer = memory_.shared + memory_.of_layers.front().second;
  EXPECT_EQ(groups_within(memory_, left, one_layer),
            (std::vector<std::vector<InputId>>{{left[0], left[1]}, {left[2]}}));
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
