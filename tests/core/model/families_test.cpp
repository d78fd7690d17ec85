// Every family computes what transformers computes: log-probabilities, LoRA gradients, greedy answers, on any
// number of tensor ranks (tests/reference/make_families.py makes the models and says what is expected).
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "core/model/tensors.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"
#include "tests/core/model/lora_grids.hpp"
#include "tests/core/model/small_model.hpp"

namespace efface::testing {
namespace {

const std::vector<Projection> kAll(std::begin(kProjections), std::end(kProjections));
constexpr int kRows = 2;

std::vector<int64_t> integers(const at::Tensor& tensor) {
  return {tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel()};
}

class Families : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const char* all = std::getenv("EFFACE_FAMILIES");
    if (all == nullptr || !std::filesystem::exists(all)) GTEST_SKIP() << "the families' models are not there";
    folder_ = std::filesystem::path(all) / GetParam();
    reference_ = SafetensorsReader::open_file(folder_ / "reference.safetensors");
    const ModelConfig config = read_model_config(folder_);
    const int size = world().size();
    if (config.heads % size != 0) GTEST_SKIP() << "heads do not divide by " << size;
    mesh_ = make_mesh(world(), size, 1);
  }

  at::Tensor read(const std::string& name) const { return reference_->read(name); }
  Transformer load(at::ScalarType dtype) const { return Transformer::load(folder_, mesh_, {dtype}); }

  /// log p of every token of the vocabulary after each token but the last.
  at::Tensor log_probabilities(const Transformer& model, int row) const {
    const at::NoGradGuard no_grad;
    const auto ids = integers(read("ids." + std::to_string(row)));
    const auto length = static_cast<int64_t>(ids.size());
    const at::Tensor hidden = model.forward(make_batch({{ids, length}}));
    return at::log_softmax(model.logits(hidden.narrow(0, 0, length - 1)), 1);
  }

  std::filesystem::path folder_;
  std::optional<SafetensorsReader> reference_;
  Mesh mesh_;
};

TEST_P(Families, LogProbabilitiesAreThoseOfTransformers) {
  const Transformer model = load(at::kFloat);
  for (int row = 0; row < kRows; ++row) {
    const at::Tensor difference = log_probabilities(model, row) - read("log_p." + std::to_string(row));
    EXPECT_LT(difference.abs().max().item<double>(), 1e-4) << "row " << row;
  }
}

TEST_P(Families, RowsTogetherAreAsIfEachWereAlone) {
  const Transformer model = load(at::kFloat);
  const at::NoGradGuard no_grad;
  std::vector<TokenRow> rows;
  for (int row = 0; row < kRows; ++row) {
    const auto ids = integers(read("ids." + std::to_string(row)));
    rows.push_back({ids, 1});
  }
  const at::Tensor together = model.label_log_probabilities(make_batch(rows));
  std::vector<at::Tensor> alone;
  for (int row = 0; row < kRows; ++row) {
    const at::Tensor expected = read("log_p." + std::to_string(row));
    alone.push_back(
        expected.gather(1, read("ids." + std::to_string(row)).slice(0, 1).unsqueeze(1)).squeeze(1));
  }
  EXPECT_LT((together - at::cat(alone)).abs().max().item<double>(), 1e-4);
}

TEST_P(Families, Bf16IsAsCloseToFp32AsTransformersIs) {
  if (world().size() > 1) GTEST_SKIP() << "partial sums of several ranks are rounded once more";
  const Transformer model = load(at::kBFloat16);
  if (model.config().experts_per_token > 0)
    GTEST_SKIP() << "a choice of experts near a tie falls either way, and the outputs with it";
  double ours = 0, eager = 0, sdpa = 0, between = 0;
  for (int row = 0; row < kRows; ++row) {
    const std::string n = std::to_string(row);
    const at::Tensor exact = read("log_p." + n), a = read("log_p_bf16." + n),
                     b = read("log_p_bf16_sdpa." + n);
    ours += (log_probabilities(model, row) - exact).square().mean().item<double>();
    eager += (a - exact).square().mean().item<double>();
    sdpa += (b - exact).square().mean().item<double>();
    between += (a - b).square().mean().item<double>();
  }
  RecordProperty("rms_ours", std::to_string(std::sqrt(ours)));
  RecordProperty("rms_eager", std::to_string(std::sqrt(eager)));
  RecordProperty("rms_sdpa", std::to_string(std::sqrt(sdpa)));
  RecordProperty("rms_eager_to_sdpa", std::to_string(std::sqrt(between)));
  EXPECT_LE(ours, std::max(eager, model.config().attention_softcap > 0 ? 0 : sdpa));
}

TEST_P(Families, GreedyAnswersAreThoseOfTransformers) {
  const Transformer model = load(at::kFloat);
  std::vector<std::vector<int64_t>> prompts, expected;
  for (int row = 0; row < kRows; ++row) {
    prompts.push_back(integers(read("prompt." + std::to_string(row))));
    expected.push_back(integers(read("answer." + std::to_string(row))));
  }
  EXPECT_EQ(model.generate(prompts, static_cast<int64_t>(expected[0].size())), expected);
}

/// This rank's part of a global matrix cut along `dim`.
at::Tensor part_of(const at::Tensor& global, const Weight& weight, int dim) {
  return global.narrow(dim, weight.begin, weight.local.size(weight.dim())).clone();
}

TEST_P(Families, LoraGradientsOfOneStepAreThoseOfPeft) {
  Transformer model = load(at::kFloat);
  const ModelConfig& config = model.config();
  const int64_t r = 4;
  std::map<ModuleId, LoraAdapter> adapters;
  // PEFT's adapter of a fused tensor has one A for all its parts, whose rows of B follow each other.
  std::map<std::string, int64_t> stored_rows;
  const auto modules = modules_of(config, 0, static_cast<int>(config.layers), kAll);
  for (const ModuleId& module : modules) {
    int64_t& rows = stored_rows[stored_weight(config, module).name];
    rows = std::max(rows, stored_weight(config, module).row + output_width(config, module));
  }
  for (const ModuleId& module : modules) {
    const Weight weight = model.weight(module);
    const StoredTensor stored = stored_weight(config, module);
    const at::Tensor a = lora_a_grid(r, weight.global_shape[1]);
    const at::Tensor b =
        lora_b_grid(stored_rows.at(stored.name), r).narrow(0, stored.row, weight.global_shape[0]).clone();
    const bool row_parallel = is_row_parallel(module.projection);
    LoraAdapter& adapter = adapters[module];
    adapter.a = (row_parallel ? part_of(a, weight, 1) : a).requires_grad_();
    adapter.b = (row_parallel ? b : part_of(b, weight, 0)).requires_grad_();
    adapter.scale = 2;
    model.set_adapter(module, adapter);
  }
  const auto loss = model.label_log_probabilities(make_batch({{integers(read("ids.0")), 1}})).mean().neg();
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), read("lora.loss").item<double>(), 1e-5);

  std::map<std::string, at::Tensor> d_a, d_b;
  for (const ModuleId& module : modules) {
    const Weight weight = model.weight(module);
    const StoredTensor stored = stored_weight(config, module);
    const LoraAdapter& adapter = adapters.at(module);
    const auto gradient = [](const at::Tensor& leaf) {
      return leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
    };
    at::Tensor whole_a = at::zeros({r, weight.global_shape[1]});
    at::Tensor whole_b = at::zeros({weight.global_shape[0], r});
    const int64_t size = weight.local.size(weight.dim());
    if (is_row_parallel(module.projection)) {
      whole_a.narrow(1, weight.begin, size).copy_(gradient(adapter.a));
      whole_b.copy_(gradient(adapter.b));
    } else {
      whole_a.copy_(gradient(adapter.a));
      if (weight.primary) whole_b.narrow(0, weight.begin, size).copy_(gradient(adapter.b));
    }
    mesh_.tensor.all_reduce(whole_a);
    mesh_.tensor.all_reduce(whole_b);
    auto& sum_a = d_a.try_emplace(stored.name, at::zeros_like(whole_a)).first->second;
    sum_a.add_(whole_a);
    auto& rows_b = d_b.try_emplace(stored.name, at::zeros({stored_rows.at(stored.name), r})).first->second;
    rows_b.narrow(0, stored.row, weight.global_shape[0]).copy_(whole_b);
  }
  const auto compare = [&](const at::Tensor& ours, const std::string& name) {
    const at::Tensor theirs = read(name);
    if (theirs.norm().item<double>() == 0)
      EXPECT_EQ(ours.norm().item<double>(), 0) << name;  // an expert that no token went to
    else
      EXPECT_LT(relative_error(ours, theirs), 1e-4) << name;
  };
  for (const auto& [name, gradient] : d_a) {
    const std::string module = "lora." + name.substr(0, name.size() - std::string(".weight").size());
    compare(gradient, module + ".lora_A");
    compare(d_b.at(name), module + ".lora_B");
  }
}

TEST_P(Families, WhatWasLoadedIsWhatTheFileHolds) {
  const Transformer model = load(at::kFloat);
  const auto file = SafetensorsReader::open_folder(folder_);
  std::map<std::string, at::Tensor> whole;
  for (const Weight& weight : model.weights()) {
    at::Tensor global = at::zeros(weight.global_shape);
    const bool mine = weight.sharding == Sharding::replicated ? mesh_.tensor_rank() == 0 : weight.primary;
    if (mine) global.narrow(weight.dim(), weight.begin, weight.local.size(weight.dim())).copy_(weight.local);
    mesh_.tensor.all_reduce(global);
    auto [stored, added] = whole.try_emplace(weight.stored_name, global);
    if (!added) stored->second = at::cat({stored->second, global});
  }
  const auto names = file.names();
  EXPECT_EQ(whole.size(), names.size());
  for (const std::string& name : names) EXPECT_TRUE(at::equal(whole.at(name), file.read(name))) << name;
}

TEST_P(Families, AnExpertSeesTheTokensThatGoToIt) {
  const Transformer model = load(at::kFloat);
  const ModelConfig& config = model.config();
  const at::NoGradGuard no_grad;
  const auto ids = integers(read("ids.0"));
  const RaggedBatch batch = make_batch({{ids, 1}});
  std::map<int, int64_t> routed;
  std::set<InputId> seen;
  Taps taps;
  taps.on_expert_input = [&](const InputId& id, const at::Tensor& x, const at::Tensor& tokens) {
    EXPECT_TRUE(seen.insert(id).second) << input_name(id) << " seen twice";
    EXPECT_EQ(x.size(0), tokens.size(0));
    EXPECT_EQ(x.size(1), input_width(id, config) / (id.input == Input::down ? mesh_.tensor_size() : 1));
    if (id.input == Input::gate_up) routed[id.layer] += tokens.size(0);
  };
  model.forward(batch, &taps);
  for (int layer = 0; layer < config.layers; ++layer) {
    const int64_t experts = config.kind(layer).experts;
    EXPECT_EQ(routed[layer], experts == 0 ? 0 : batch.tokens() * config.experts_per_token);
    for (int expert = 0; expert < experts; ++expert)
      EXPECT_TRUE(seen.count({layer, Input::down, expert})) << "an expert without tokens too";
  }
}

INSTANTIATE_TEST_SUITE_P(All, Families,
                         ::testing::Values("llama_biases", "llama_linear", "llama_dynamic", "llama_llama3",
                                           "llama_yarn", "llama_kv2", "llama_kv1", "smollm3", "mistral",
                                           "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "mixtral",
                                           "qwen3_moe"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace efface::testing
