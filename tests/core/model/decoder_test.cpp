// What a decoder must do on any rows, in any dtype, with taps, adapters and weights of its own.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "distributed/error.hpp"
#include "tests/core/model/small_model.hpp"

namespace efface::testing {
namespace {

const std::vector<Projection> kAll(std::begin(kProjections), std::end(kProjections));

Transformer small_model(at::ScalarType dtype = at::kDouble) {
  return Transformer::random(small_config(1), single_mesh(), 5, {dtype});
}

at::Tensor label_loss(const Transformer& model, const RaggedBatch& batch) {
  return model.label_log_probabilities(batch).sum().neg();
}

TEST(Decoder, RowsOfAnyLengthsAreAsIfEachWereAlone) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const double tolerance = dtype == at::kDouble ? 1e-12 : 1e-5;
    const Transformer model = small_model(dtype);
    const std::vector<int64_t> lengths = {5, 33, 1, 6, 33, 2, 40, 7};
    const RaggedBatch together = ragged_batch(model.config(), lengths);
    Transformer adapted = model;
    const auto adapters = attach_adapters(adapted, {Projection::k, Projection::down});
    const at::Tensor hidden = model.forward(together);
    const at::Tensor direction =
        philox_normal({9, "direction", ""}, hidden.size(0), hidden.size(1)).to(dtype);
    (hidden * direction).sum().backward();
    std::map<ModuleId, at::Tensor> gradients;
    for (const auto& [module, adapter] : adapters) {
      gradients[module] = adapter.a.grad().clone();
      adapter.a.mutable_grad().zero_();
    }

    for (int64_t row = 0; row < together.rows(); ++row) {
      const int64_t begin = together.offsets[row], length = lengths[row];
      const at::Tensor ids = together.ids.narrow(0, begin, length);
      const std::vector<int64_t> values(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + length);
      const at::Tensor alone = model.forward(make_batch({{values, length}}));
      EXPECT_LT(relative_error(hidden.narrow(0, begin, length), alone), tolerance) << "row " << row;
      (alone * direction.narrow(0, begin, length)).sum().backward();
    }
    for (const auto& [module, adapter] : adapters)
      EXPECT_LT(relative_error(gradients[module], adapter.a.grad()), 10 * tolerance) << module_name(module);
  }
}

TEST(Decoder, NoTokenSeesALaterOne) {
  const Transformer model = small_model();
  const RaggedBatch batch = ragged_batch(model.config(), {12});
  RaggedBatch changed = batch;
  changed.ids = batch.ids.clone();
  changed.ids[8] = (batch.ids[8].item<int64_t>() + 1) % model.config().vocab_size;
  const at::Tensor before = model.forward(batch), after = model.forward(changed);
  EXPECT_TRUE(at::equal(before.narrow(0, 0, 8), after.narrow(0, 0, 8)));
  EXPECT_GT(relative_error(before.narrow(0, 8, 4), after.narrow(0, 8, 4)), 1e-3);
}

TEST(Decoder, ARowLongerThanTheModelsPositionsIsRefusedByAnyPass) {
  const Transformer model = small_model();  // 64 positions
  EXPECT_NO_THROW(model.forward(ragged_batch(model.config(), {64, 64})));
  const RaggedBatch batch = ragged_batch(model.config(), {5, 65});
  try {
    model.forward(batch);
    ADD_FAILURE() << "65 tokens were accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::data);
    const std::string message = error.what();
    for (const char* part : {"row 1", "65 tokens", "64 positions", "shorten"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  const at::Tensor middle = at::zeros({batch.tokens(), model.config().hidden_size}, at::kDouble);
  EXPECT_THROW(model.run_layers(middle, batch, 1, 2), Error) << "a window's layers alone";
}

TEST(Decoder, ABatchWithoutRowsGivesNothingAndNoGradient) {
  Transformer model = small_model(at::kFloat);
  const auto adapters = attach_adapters(model, kAll);
  const at::Tensor log_probabilities = model.label_log_probabilities(make_batch({}));
  EXPECT_EQ(log_probabilities.numel(), 0);
  log_probabilities.sum().backward();
  for (const auto& [module, adapter] : adapters)
    EXPECT_TRUE(!adapter.a.grad().defined() || adapter.a.grad().abs().sum().item<double>() == 0);
}

TEST(Decoder, Bf16IsFp32ToItsThreeDigits) {
  const RaggedBatch batch = ragged_batch(small_config(1), {9, 20, 4});
  Transformer fp32 = small_model(at::kFloat), bf16 = small_model(at::kBFloat16);
  EXPECT_LT(relative_error(bf16.forward(batch), fp32.forward(batch)), 2e-2);
  EXPECT_EQ(bf16.label_log_probabilities(batch).scalar_type(), at::kFloat);
  const auto wide = attach_adapters(fp32, kAll), narrow = attach_adapters(bf16, kAll);
  label_loss(fp32, batch).backward();
  label_loss(bf16, batch).backward();
  for (const auto& [module, adapter] : wide)
    EXPECT_LT(relative_error(narrow.at(module).b.grad(), adapter.b.grad()), 1e-1) << module_name(module);
}

TEST(Decoder, Fp32IsFp64ToItsSevenDigits) {
  const RaggedBatch batch = ragged_batch(small_config(1), {9, 20, 4});
  Transformer fp32 = small_model(at::kFloat), fp64 = small_model(at::kDouble);
  EXPECT_LT(relative_error(fp32.forward(batch), fp64.forward(batch)), 2e-6);
  const auto narrow = attach_adapters(fp32, kAll), wide = attach_adapters(fp64, kAll);
  label_loss(fp32, batch).backward();
  label_loss(fp64, batch).backward();
  for (const auto& [module, adapter] : wide)
    EXPECT_LT(relative_error(narrow.at(module).a.grad(), adapter.a.grad()), 2e-5) << module_name(module);
}

TEST(Decoder, AWindowInFp32HasFp32StatesAndWeights) {
  Transformer model = small_model(at::kBFloat16);
  model.set_layer_dtype(1, 2, at::kFloat);
  std::map<std::string, at::ScalarType> seen;
  Taps taps;
  taps.on_input = [&](const InputId& input, const at::Tensor& x) {
    seen[input_name(input)] = x.scalar_type();
  };
  const RaggedBatch batch = ragged_batch(model.config(), {6, 3});
  const at::Tensor window = model.run_layers(model.embed(batch), batch, 0, 2, &taps);
  EXPECT_EQ(window.scalar_type(), at::kFloat);
  EXPECT_EQ(seen.at("0.down"), at::kBFloat16);
  EXPECT_EQ(seen.at("1.qkv"), at::kFloat);
  EXPECT_EQ(seen.at("1.down"), at::kFloat);
  const at::Tensor leaf = model.make_trainable({1, Projection::down});
  EXPECT_EQ(leaf.scalar_type(), at::kFloat);
  model.run_layers(model.embed(batch), batch, 0, 2).square().sum().backward();
  EXPECT_GT(leaf.grad().norm().item<double>(), 0);
}

TEST(Decoder, AnFp32LastLayerOfABf16ModelReachesTheBf16Head) {
  Transformer model = small_model(at::kBFloat16);
  const RaggedBatch batch = ragged_batch(model.config(), {6, 3});
  const at::Tensor plain = model.label_log_probabilities(batch);
  model.set_layer_dtype(2, 3, at::kFloat);
  const at::Tensor leaf = model.make_trainable({2, Projection::down});
  const at::Tensor mixed = model.label_log_probabilities(batch);
  EXPECT_LT(relative_error(mixed, plain), 2e-2);
  mixed.sum().backward();
  EXPECT_GT(leaf.grad().norm().item<double>(), 0);
}

TEST(Decoder, ATrainableModuleOfABf16LayerKeepsAnFp32Master) {
  Transformer model = small_model(at::kBFloat16);
  const at::Tensor leaf = model.make_trainable({0, Projection::gate});
  EXPECT_EQ(leaf.scalar_type(), at::kFloat);
  EXPECT_TRUE(leaf.is_contiguous());
  label_loss(model, ragged_batch(model.config(), {8})).backward();
  EXPECT_EQ(leaf.grad().scalar_type(), at::kFloat);
  EXPECT_GT(leaf.grad().norm().item<double>(), 0);
}

TEST(Decoder, EachInputIsSeenOnce) {
  const Transformer model = small_model();
  const ModelConfig& config = model.config();
  std::vector<std::string> seen;
  Taps taps;
  taps.on_input = [&](const InputId& input, const at::Tensor& x) {
    seen.push_back(input_name(input));
    EXPECT_EQ(x.size(0), 9);
    EXPECT_EQ(x.size(1), input.input == Input::down ? config.intermediate_size : config.hidden_size);
  };
  const at::NoGradGuard no_grad;
  model.forward(ragged_batch(config, {6, 3}), &taps);
  std::vector<std::string> expected;
  for (int layer = 0; layer < config.layers; ++layer)
    for (Input input : kInputs) expected.push_back(input_name({layer, input}));
  EXPECT_EQ(seen, expected);
}

TEST(Decoder, WhatATapReplacesIsWhatFlowsOn) {
  const Transformer model = small_model();
  const at::NoGradGuard no_grad;
  const RaggedBatch batch = ragged_batch(model.config(), {6, 3});
  const at::Tensor noise = philox_normal({1, "noise", ""}, 9, model.config().hidden_size).to(at::kDouble);

  Taps noisy;
  noisy.replace_embedding = [&](const at::Tensor& x) { return x + noise; };
  EXPECT_TRUE(at::equal(model.embed(batch, &noisy), model.embed(batch) + noise));

  Taps patched;
  patched.replace_mlp_output = [&](int layer, const at::Tensor& x) { return layer == 2 ? x + noise : x; };
  const at::Tensor plain = model.run_layers(model.embed(batch), batch);
  EXPECT_LT(relative_error(model.run_layers(model.embed(batch), batch, 0, -1, &patched), plain + noise),
            1e-12);
}

TEST(Decoder, LayersRunInPartsAreLayersRunAtOnce) {
  const Transformer model = small_model();
  const RaggedBatch batch = ragged_batch(model.config(), {6, 3, 11});
  const at::Tensor below = model.run_layers(model.embed(batch), batch, 0, 1);
  EXPECT_TRUE(at::equal(model.final_norm(model.run_layers(below, batch, 1, 3)), model.forward(batch)));
}

TEST(Decoder, AnAdapterIsTheWeightItWouldBeMergedInto) {
  Transformer model = small_model();
  const at::NoGradGuard no_grad;
  const RaggedBatch batch = ragged_batch(model.config(), {6, 3, 11});
  const at::Tensor plain = model.forward(batch);
  const auto adapters = attach_adapters(model, {Projection::q, Projection::v, Projection::up, Projection::o});
  const at::Tensor adapted = model.forward(batch);
  EXPECT_GT(relative_error(adapted, plain), 1e-2);

  model.enable_adapters(false);
  EXPECT_TRUE(at::equal(model.forward(batch), plain));
  for (const auto& [module, adapter] : adapters)
    model.weight(module).local.add_(at::mm(adapter.b, adapter.a), adapter.scale);
  EXPECT_LT(relative_error(model.forward(batch), adapted), 1e-10);
}

TEST(Decoder, AnAdapterOfTheWrongShapeIsRefused) {
  Transformer model = small_model();
  LoraAdapter adapter =
      random_adapter({0, Projection::q}, model.weight({0, Projection::q}), model.mesh(), at::kDouble);
  EXPECT_THROW(model.set_adapter({0, Projection::k}, adapter), Error);
  EXPECT_THROW(model.set_adapter({0, Projection::down}, adapter), Error);
}

TEST(Decoder, ATrainedWeightIsTheOneThatActs) {
  for (Projection projection : {Projection::q, Projection::up, Projection::down}) {
    Transformer model = small_model();
    const RaggedBatch batch = ragged_batch(model.config(), {6, 3, 11});
    const at::Tensor plain = model.forward(batch);
    const at::Tensor leaf = model.make_trainable({1, projection});
    EXPECT_LT(relative_error(model.forward(batch), plain), 1e-12);
    const at::NoGradGuard no_grad;
    model.weight({1, projection}).local.mul_(1.5);
    EXPECT_GT(relative_error(model.forward(batch), plain), 1e-3) << projection_name(projection);
    leaf.div_(1.5);
    EXPECT_LT(relative_error(model.forward(batch), plain), 1e-12) << projection_name(projection);
  }
}

TEST(Decoder, AnUnknownTensorNameGetsTheNearestOne) {
  try {
    small_model().weight("model.layers.1.mlp.donw_proj.weight");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("did you mean model.layers.1.mlp.down_proj.weight?"));
  }
}

TEST(Head, LogProbabilitiesAndTheirGradientAreThoseOfTheWholeLogitMatrix) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Transformer model = small_model(dtype);
    const int64_t rows = 23;
    const at::Tensor ids = at::arange(rows) * 4;
    const at::Tensor weights = at::linspace(-1, 2, rows, dtype);
    const auto fresh = [&] {
      return (philox_normal({2, "h", ""}, rows, model.config().hidden_size).to(dtype) * 2).requires_grad_();
    };
    const at::Tensor hidden = fresh(), wide = fresh().detach().to(at::kDouble).requires_grad_();
    const at::Tensor values = model.token_log_probabilities(hidden, ids);
    (values * weights).sum().backward();
    const at::Tensor head = model.weight("lm_head.weight").local.to(at::kDouble);
    const at::Tensor expected =
        at::log_softmax(at::mm(wide, head.t()), 1).gather(1, ids.unsqueeze(1)).squeeze(1);
    (expected * weights).sum().backward();
    const double tolerance = dtype == at::kDouble ? 1e-12 : 2e-6;
    EXPECT_LT(relative_error(values, expected), tolerance);
    EXPECT_LT(relative_error(hidden.grad(), wide.grad()), tolerance);
  }
}

TEST(Head, DivergenceAndItsGradientAreThoseOfTheWholeLogitMatrix) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Transformer model = small_model(dtype);
    const auto draw = [&](const char* name) {
      return philox_normal({2, name, ""}, 11, model.config().hidden_size).to(dtype);
    };
    const at::Tensor hidden = draw("h").requires_grad_(), reference = draw("r");
    const at::Tensor wide = draw("h").to(at::kDouble).requires_grad_();
    const at::Tensor weights = at::linspace(-1, 2, 11, dtype);
    const at::Tensor values = model.kl_to_reference(hidden, reference);
    (values * weights).sum().backward();
    const at::Tensor head = model.weight("lm_head.weight").local.to(at::kDouble).t();
    const at::Tensor p = at::softmax(at::mm(reference.to(at::kDouble), head), 1);
    const at::Tensor expected = (p * (p.log() - at::log_softmax(at::mm(wide, head), 1))).sum(1);
    (expected * weights).sum().backward();
    const double tolerance = dtype == at::kDouble ? 1e-12 : 2e-5;
    EXPECT_LT(relative_error(values, expected), tolerance);
    EXPECT_LT(relative_error(hidden.grad(), wide.grad()), tolerance);
    EXPECT_LT(model.kl_to_reference(reference, reference).abs().max().item<double>(), 1e-6);
  }
}

TEST(Head, MoreRowsThanAChunkAreAllThere) {
  ModelConfig config = small_config(1);
  config.vocab_size = 1 << 19;  // 16 rows a chunk
  config.tie_word_embeddings = true;
  const Transformer model = Transformer::random(config, single_mesh(), 5);
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = philox_normal({2, "h", ""}, 37, config.hidden_size);
  const at::Tensor logits = model.logits(hidden);
  const at::Tensor ids = logits.argmax(1);
  EXPECT_TRUE(at::equal(model.argmax(hidden), ids));
  EXPECT_LT(relative_error(model.token_log_probabilities(hidden, ids),
                           at::log_softmax(logits.to(at::kDouble), 1).amax(1)),
            1e-6);
}

}  // namespace
}  // namespace efface::testing
