#include "core/subspace/covariance.hpp"

#include <numeric>

#include "core/subspace/cpu_outer_product.hpp"
#include "core/subspace/second_moment.hpp"
#include "core/subspace/token_staging.hpp"
#include "distributed/error.hpp"
#include "tests/core/model/small_model.hpp"
#include "tests/core/subspace/spectra.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

// ||D^-1/2 (C - C64) D^-1/2||_F / n, D = diag(C64)
double scaled_error(const at::Tensor& c, const at::Tensor& exact) {
  const at::Tensor d = exact.diagonal().rsqrt();
  return ((c - exact) * d.unsqueeze(0) * d.unsqueeze(1)).norm().item<double>() /
         static_cast<double>(exact.size(0));
}

at::Tensor whole(const BlockRows& matrix) { return matrix.group.all_gather_rows(matrix.local); }

TokenRow row_of(const ModelConfig& config, int64_t index) {
  TokenRow row;
  for (int64_t i = 0; i < 5 + (index * 7) % 20; ++i)
    row.ids.push_back((index * 31 + i * i + 3) % config.vocab_size);
  row.prompt_length = static_cast<int64_t>(row.ids.size());
  return row;
}

constexpr int64_t kRows = 23, kHeldoutFrom = 18, kRowsAPass = 7;

// Rows [0, kHeldoutFrom) into the covariance and the rest into the held-out one, kRowsAPass rows at a time,
// dealt round-robin: data ranks hold different numbers of rows, and none in some passes.
std::vector<Covariance> accumulate(const Transformer& model, const std::vector<InputId>& inputs,
                                   const CovarianceOptions& options) {
  const Mesh& mesh = model.mesh();
  CovarianceAccumulator accumulator(model.config(), mesh, inputs, options);
  const at::NoGradGuard no_grad;
  for (const auto& [begin, end, heldout] :
       {std::tuple{int64_t{0}, kHeldoutFrom, false}, std::tuple{kHeldoutFrom, kRows, true}})
    for (int64_t first = begin; first < end; first += kRowsAPass) {
      std::vector<TokenRow> rows;
      for (int64_t r = first + mesh.data_rank(); r < std::min(first + kRowsAPass, end); r += mesh.data_size())
        rows.push_back(row_of(model.config(), r));
      const RaggedBatch batch = make_batch(rows);
      const Taps& taps = accumulator.taps(batch, heldout);
      model.run_layers(model.embed(batch, &taps), batch, 0, accumulator.last_layer() + 1, &taps);
    }
  return accumulator.finish();
}

// The inputs themselves, from a model on this rank alone, position 0 first apart.
struct Seen {
  std::vector<at::Tensor> tokens, sinks;  // fp64, row by row
  at::Tensor counted(bool skip_sinks) const {
    std::vector<at::Tensor> all;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!skip_sinks) all.push_back(sinks[i]);
      all.push_back(tokens[i]);
    }
    return at::cat(all);
  }
};
std::map<InputId, Seen> inputs_of_rows(const Transformer& model, int64_t begin, int64_t end) {
  std::map<InputId, Seen> seen;
  Taps taps;
  taps.on_input = [&](const InputId& id, const at::Tensor& x) {
    seen[id].sinks.push_back(x.narrow(0, 0, 1).to(at::kDouble));
    seen[id].tokens.push_back(x.narrow(0, 1, x.size(0) - 1).to(at::kDouble));
  };
  const at::NoGradGuard no_grad;
  for (int64_t r = begin; r < end; ++r) model.forward(make_batch({row_of(model.config(), r)}), &taps);
  return seen;
}

at::Tensor second_moment(const at::Tensor& x) { return x.t().matmul(x) / static_cast<double>(x.size(0)); }

// Every factorisation of the world that the model allows.
class CovarianceOnAMesh : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    tensor = GetParam();
    if (world().size() % tensor != 0) GTEST_SKIP() << "not for " << world().size() << " ranks";
    mesh = make_mesh(world(), tensor, world().size() / tensor);
  }
  int tensor = 1;
  Mesh mesh;
  ModelConfig config = small_config(GetParam());
  std::vector<InputId> inputs =
      inputs_of(modules_of(0, 2, {std::begin(kProjections), std::end(kProjections)}));
};
INSTANTIATE_TEST_SUITE_P(Tensor, CovarianceOnAMesh, ::testing::Values(1, 2, 3, 4));

TEST_P(CovarianceOnAMesh, IsTheSecondMomentOfTheInputsOnOneRank) {
  const Transformer model = Transformer::random(config, mesh, 3),
                    alone = Transformer::random(config, single_mesh(), 3);
  for (bool skip_sinks : {true, false}) {
    const auto covariances = accumulate(model, inputs, {.skip_sinks = skip_sinks});
    auto seen = inputs_of_rows(alone, 0, kHeldoutFrom), heldout = inputs_of_rows(alone, kHeldoutFrom, kRows);
    ASSERT_EQ(covariances.size(), inputs.size());
    for (const Covariance& c : covariances) {
      const at::Tensor x = seen[c.id].counted(skip_sinks), h = heldout[c.id].counted(skip_sinks);
      EXPECT_EQ(c.tokens, x.size(0));
      EXPECT_EQ(c.heldout_tokens, h.size(0));
      const at::Tensor matrix = whole(c.matrix);
      EXPECT_LE(scaled_error(matrix, second_moment(x)), 1e-6) << input_name(c.id);
      EXPECT_TRUE(at::equal(matrix, matrix.t())) << input_name(c.id);
      EXPECT_LE(scaled_error(whole(c.heldout), second_moment(h)), 1e-6) << input_name(c.id);
      const at::Tensor squared = x.square().sum(1);
      EXPECT_NEAR(c.top_token_share, (squared.max() / squared.sum()).item<double>(), 1e-6);
      EXPECT_EQ(c.sink_mean.defined(), skip_sinks);
      if (skip_sinks) {
        EXPECT_LE(relative_error(c.sink_mean, at::cat(seen[c.id].sinks).mean(0)), 1e-5);
      }
      EXPECT_EQ(c.norm_cap, 0);
    }
  }
}

TEST_P(CovarianceOnAMesh, CapsLongTokensAtAMultipleOfTheFirstTokensMedianNorm) {
  const Transformer model = Transformer::random(config, mesh, 3),
                    alone = Transformer::random(config, single_mesh(), 3);
  for (int64_t sample : {1, 60, 100000}) {
    const auto covariances =
        accumulate(model, inputs, {.norm_cap = 1.1, .capped = {Input::down, Input::o}, .cap_sample = sample});
    auto seen = inputs_of_rows(alone, 0, kHeldoutFrom), heldout = inputs_of_rows(alone, kHeldoutFrom, kRows);
    for (const Covariance& c : covariances) {
      at::Tensor x = seen[c.id].counted(true);
      if (is_sharded(c.id.input)) {
        const at::Tensor norms = x.norm(2, {1});
        const at::Tensor first = std::get<0>(norms.narrow(0, 0, std::min(sample, norms.numel())).sort());
        const double cap = 1.1 * first[(first.numel() - 1) / 2].item<double>();
        EXPECT_NEAR(c.norm_cap, cap, 1e-5 * cap);
        x = x * (c.norm_cap / norms).clamp_max(1).unsqueeze(1);
      } else {
        EXPECT_EQ(c.norm_cap, 0);
      }
      EXPECT_LE(scaled_error(whole(c.matrix), second_moment(x)), 1e-6) << input_name(c.id);
      EXPECT_LE(scaled_error(whole(c.heldout), second_moment(heldout[c.id].counted(true))), 1e-6);
    }
  }
}

TEST_P(CovarianceOnAMesh, OfABf16ModelIsTakenInFp32) {
  const Transformer model = Transformer::random(config, mesh, 3, {at::kBFloat16});
  std::map<InputId, std::vector<at::Tensor>> seen;
  CovarianceAccumulator accumulator(config, mesh, inputs, {.skip_sinks = false});
  const RaggedBatch batch = make_batch({row_of(config, mesh.data_rank())});
  Taps taps = accumulator.taps(batch);
  taps.on_input = [&, accumulate = taps.on_input](const InputId& id, const at::Tensor& x) {
    accumulate(id, x);
    at::Tensor all =
        is_sharded(id.input) ? mesh.tensor.all_gather_rows(x.t().contiguous()).t().contiguous() : x;
    seen[id].push_back(mesh.data.all_gather_rows(all).to(at::kDouble));
  };
  const at::NoGradGuard no_grad;
  model.forward(batch, &taps);
  for (const Covariance& c : accumulator.finish())
    EXPECT_LE(scaled_error(whole(c.matrix), second_moment(at::cat(seen[c.id]))), 1e-6) << input_name(c.id);
}

TEST(CovarianceAccumulator, RefusesToFinishWithoutTokens) {
  const ModelConfig config = small_config(1);
  const Mesh mesh = make_mesh(world(), 1, world().size());
  CovarianceAccumulator accumulator(config, mesh, {{0, Input::qkv}});
  EXPECT_THROW(accumulator.finish(), Error);
}

// Widths around the panels', that do not divide by the group; amounts around the staging's.
TEST(StagedSecondMoment, SumsEveryTokenOnceWhateverTheChunks) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble})
    for (int64_t n : {5, 191, 193, 450}) {
      std::vector<at::Tensor> tokens;
      StagedSecondMoment staged(n, world());
      ProductScratch scratch;
      for (int64_t count : {3, 0, 1020, 1, 1, 2047, 2500, 17}) {
        const at::Tensor x = random_matrix(count + 2, n, "staged" + std::to_string(count)).to(dtype);
        ColumnBlocks blocks;
        for (int rank = 0; rank < world().size(); ++rank) {
          const auto [begin, end] = even_range(n, rank, world().size());
          blocks.push_back(x.narrow(1, begin, end - begin));
        }
        staged.add(blocks, at::arange(2, count + 2, at::kLong), {}, scratch);
        tokens.push_back(x.narrow(0, 2, count).to(at::kDouble));
      }
      const at::Tensor all = at::cat(tokens);
      EXPECT_LE(scaled_error(whole(staged.finish(Communicator())), all.t().matmul(all)), 1e-6)
          << n << " " << at::toString(dtype);
    }
}

// The form for processors without AVX-512: fp64 tokens always take it.
TEST(SecondMomentSum, ByBlasIsTheSameSum) {
  for (int64_t n : {5, 193, 450}) {
    const at::Tensor x = random_matrix(333, n, "by_blas").to(at::kDouble);
    SecondMomentSum sum(n, world());
    ProductScratch scratch;
    sum.add(x.narrow(0, 0, 100), scratch);
    sum.add(x.narrow(0, 100, 233), scratch);
    EXPECT_LE(scaled_error(whole(sum.finish(Communicator())), x.t().matmul(x)), 1e-12) << n;
  }
}

// Rectangles and triangles with edges inside a panel, an odd number of tokens, rows further apart than they
// are long.
TEST(AddOuterProduct, IsTheProductOfTheColumnsAddedToTheSum) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    if (!PackedColumns::suit(dtype)) continue;
    for (const auto& [tokens, rows, columns] :
         {std::tuple{1, 1, 1}, {7, 48, 96}, {129, 50, 47}, {513, 97, 200}}) {
      const at::Tensor x = random_matrix(tokens, rows + columns + 3, "outer").to(dtype);
      const at::Tensor a = x.narrow(1, 0, rows), b = x.narrow(1, rows + 1, columns);
      PackedColumns packed_a, packed_b;
      packed_a.pack(a);
      packed_b.pack(b);
      at::Tensor sum = at::ones({rows, columns}, at::kDouble);
      add_outer_product(sum, packed_a, packed_b, false);
      const at::Tensor exact = a.to(at::kDouble).t().matmul(b.to(at::kDouble)) + 1;
      EXPECT_LE(relative_error(sum, exact), 1e-6) << tokens << " " << at::toString(dtype);

      at::Tensor triangle = at::zeros({rows, rows}, at::kDouble);
      add_outer_product(triangle, packed_a, packed_a, true);
      const at::Tensor square = a.to(at::kDouble).t().matmul(a.to(at::kDouble));
      EXPECT_LE(relative_error(triangle.tril(), square.tril()), 1e-6) << tokens << " " << at::toString(dtype);
    }
  }
}

}  // namespace
}  // namespace efface::testing
