// Any number of tensor ranks computes what one rank computes: values and every gradient.
#include <gmock/gmock.h>

#include "distributed/error.hpp"
#include "tests/core/model/small_model.hpp"

namespace efface::testing {
namespace {

const std::vector<Projection> kAll(std::begin(kProjections), std::end(kProjections));

class TensorParallel : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  TensorParallel()
      : dtype_(GetParam()),
        tolerance_(dtype_ == at::kDouble ? 1e-8 : 1e-4),
        mesh_(make_mesh(world(), world().size(), 1)),
        config_(small_config(world().size())),
        one_(Transformer::random(config_, single_mesh(), 11, {dtype_})),
        sharded_(Transformer::random(config_, mesh_, 11, {dtype_})),
        batch_(ragged_batch(config_, {7, 3, 12, 5, 2})) {}

  void expect_close(const at::Tensor& sharded, const at::Tensor& one, const std::string& what) {
    EXPECT_GT(one.norm().item<double>(), 0) << what;
    EXPECT_LT(relative_error(sharded, one), tolerance_) << what;
  }

  /// Likelihood of the labels and divergence from a reference: every path a gradient takes.
  at::Tensor loss(const Transformer& model) {
    const at::Tensor hidden = model.forward(batch_);
    const at::Tensor labelled = hidden.index_select(0, batch_.label_positions);
    const at::Tensor reference =
        philox_normal({3, "reference", ""}, batch_.labels(), config_.hidden_size).to(dtype_);
    return model.token_log_probabilities(labelled, batch_.label_ids).mean().neg() +
           model.kl_to_reference(labelled, reference).mean() + hidden.square().mean();
  }

  at::ScalarType dtype_;
  double tolerance_;
  Mesh mesh_;
  ModelConfig config_;
  Transformer one_, sharded_;
  RaggedBatch batch_;
};

TEST_P(TensorParallel, WeightsAreSlicesOfTheSameModel) {
  const auto whole = one_.weights(), parts = sharded_.weights();
  ASSERT_EQ(whole.size(), parts.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(whole[i].name, parts[i].name);
    at::Tensor expected = whole[i].local;
    if (parts[i].sharding == Sharding::rows) expected = shard_rows(expected, mesh_);
    if (parts[i].sharding == Sharding::columns) expected = shard_columns(expected, mesh_);
    EXPECT_TRUE(at::equal(parts[i].local, expected)) << whole[i].name;
  }
}

TEST_P(TensorParallel, ForwardIsThatOfOneRank) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = one_.forward(batch_), other = sharded_.forward(batch_);
  expect_close(other, hidden, "hidden");
  expect_close(sharded_.logits(other), one_.logits(hidden), "logits");
  EXPECT_TRUE(at::equal(sharded_.argmax(other), one_.argmax(hidden)));
  expect_close(sharded_.label_log_probabilities(batch_), one_.label_log_probabilities(batch_),
               "log probabilities");
  expect_close(sharded_.kl_to_reference(other, other.flip(0)), one_.kl_to_reference(hidden, hidden.flip(0)),
               "kl");
}

TEST_P(TensorParallel, AdapterGradientsOfAllSevenLinearsAreThoseOfOneRank) {
  const auto whole = attach_adapters(one_, kAll), parts = attach_adapters(sharded_, kAll);
  const at::Tensor one_loss = loss(one_), sharded_loss = loss(sharded_);
  expect_close(sharded_loss, one_loss, "loss");
  one_loss.backward();
  sharded_loss.backward();
  for (const auto& [module, adapter] : whole) {
    const LoraAdapter& part = parts.at(module);
    const bool row_parallel = is_row_parallel(module.projection);
    const at::Tensor da =
        row_parallel ? gather_columns(part.a.grad(), mesh_) : sum_parts(part.a.grad(), mesh_);
    const at::Tensor db = row_parallel ? sum_parts(part.b.grad(), mesh_) : gather_rows(part.b.grad(), mesh_);
    expect_close(da, adapter.a.grad(), "dA of " + module_name(module));
    expect_close(db, adapter.b.grad(), "dB of " + module_name(module));
  }
}

TEST_P(TensorParallel, GradientsOfTrainableWeightsAreThoseOfOneRank) {
  for (Projection projection : {Projection::down, Projection::o, Projection::k, Projection::up}) {
    const ModuleId module{1, projection};
    one_.make_trainable(module);
    sharded_.make_trainable(module);
  }
  loss(one_).backward();
  loss(sharded_).backward();
  for (Projection projection : {Projection::down, Projection::o, Projection::k, Projection::up}) {
    const ModuleId module{1, projection};
    const at::Tensor part = sharded_.make_trainable(module).grad();
    const at::Tensor gathered =
        is_row_parallel(projection) ? gather_columns(part, mesh_) : gather_rows(part, mesh_);
    expect_close(gathered, one_.make_trainable(module).grad(), module_name(module));
  }
}

TEST_P(TensorParallel, GenerationIsThatOfOneRank) {
  if (dtype_ != at::kDouble) GTEST_SKIP() << "near ties may be broken by rounding";
  const std::vector<std::vector<int64_t>> prompts = {{1, 5, 9}, {3}, {2, 4, 6, 8, 10, 12, 14}};
  EXPECT_EQ(sharded_.generate(prompts, 8), one_.generate(prompts, 8));
  for (const int64_t top_k : {0, 20}) {
    const Sampling sampling{0.9, top_k, 3};
    EXPECT_EQ(sharded_.generate(prompts, 8, sampling), one_.generate(prompts, 8, sampling)) << top_k;
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, TensorParallel, ::testing::Values(at::kDouble, at::kFloat),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST(TensorParallelSizes, ThatDoNotDivideAreRefusedWithThoseThatDo) {
  const ModelConfig config = small_config(1);
  for (int size : {1, 2, 4, 8}) EXPECT_NO_THROW(check_tensor_parallel(config, size));
  for (int size : {0, 3, 16}) {
    try {
      check_tensor_parallel(config, size);
      ADD_FAILURE() << size << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorClass::usage);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("use one of 1, 2, 4, 8"));
    }
  }
}

}  // namespace
}  // namespace efface::testing
