// A Hugging Face folder becomes the same model on every mesh, or an error that says what is wrong with it.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"
#include "tests/core/model/small_model.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

nlohmann::json json_of(const ModelConfig& config) {
  return {{"model_type", "llama"},
          {"hidden_size", config.hidden_size},
          {"intermediate_size", config.intermediate_size},
          {"num_hidden_layers", config.layers},
          {"num_attention_heads", config.heads},
          {"num_key_value_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"vocab_size", config.vocab_size},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"eos_token_id", {2, 3}},
          {"tie_word_embeddings", config.tie_word_embeddings}};
}

Tensors tensors_of(const Transformer& model) {
  Tensors tensors;
  for (const Weight& weight : model.weights()) tensors.emplace_back(weight.name, weight.local.contiguous());
  return tensors;
}

void write_folder(const std::filesystem::path& folder, const nlohmann::json& config, const Tensors& tensors) {
  write_bytes(folder / "config.json", config.dump());
  write_safetensors(folder / "model.safetensors", tensors);
}

/// What loading the folder complains about; "" when it does not.
std::string complaint(const std::filesystem::path& folder) {
  try {
    Transformer::load(folder, single_mesh());
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::model);
    return error.what();
  }
}

class Loading : public ::testing::Test {
 protected:
  Loading()
      : config_(small_config(world().size())),
        model_(Transformer::random(config_, single_mesh(), 3)),
        tensors_(tensors_of(model_)) {}

  ModelConfig config_;
  Transformer model_;
  Tensors tensors_;
  TemporaryFolder folder_;
};

TEST_F(Loading, GivesEachRankItsSlicesOfTheWrittenModel) {
  write_folder(folder_.path(), json_of(config_), tensors_);
  const Mesh mesh = make_mesh(world(), world().size(), 1);
  const Transformer loaded = Transformer::load(folder_.path(), mesh);
  const Transformer expected = Transformer::random(config_, mesh, 3);
  const auto a = loaded.weights(), b = expected.weights();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    EXPECT_TRUE(at::equal(a[i].local, b[i].local)) << a[i].name;
  }
  EXPECT_EQ(loaded.config().eos_token_ids, (std::vector<int64_t>{2, 3}));
}

TEST_F(Loading, KeepsTheFilesOrderAndSharesATiedHead) {
  config_.tie_word_embeddings = true;
  Tensors reversed;
  for (const auto& tensor : tensors_)
    if (tensor.first != "lm_head.weight") reversed.insert(reversed.begin(), tensor);
  write_folder(folder_.path(), json_of(config_), reversed);
  const Transformer loaded = Transformer::load(folder_.path(), single_mesh(), {at::kBFloat16});
  const auto weights = loaded.weights();
  ASSERT_EQ(weights.size(), reversed.size());
  for (size_t i = 0; i < weights.size(); ++i) EXPECT_EQ(weights[i].name, reversed[i].first);
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = at::ones({1, config_.hidden_size}, at::kBFloat16);
  const at::Tensor before = loaded.logits(hidden);
  loaded.weight("model.embed_tokens.weight").local.mul_(2);
  EXPECT_TRUE(at::equal(loaded.logits(hidden), before * 2));
}

TEST_F(Loading, NamesWhatIsMissingWhatIsTooMuchAndWhatHasTheWrongShape) {
  tensors_.erase(tensors_.begin());
  tensors_.emplace_back("model.layers.0.self_attn.q_proj.bias", at::zeros({4}));
  for (auto& [name, tensor] : tensors_)
    if (name == "model.layers.1.mlp.down_proj.weight") tensor = at::zeros({3, 5});
  write_folder(folder_.path(), json_of(config_), tensors_);
  EXPECT_THAT(complaint(folder_.path()),
              AllOf(HasSubstr("model.embed_tokens.weight is missing"),
                    HasSubstr("model.layers.0.self_attn.q_proj.bias is not part of this model"),
                    HasSubstr("model.layers.1.mlp.down_proj.weight is [3, 5], not [")));
}

TEST_F(Loading, RefusesAConfigItWouldComputeWrongly) {
  const std::vector<std::pair<std::string, nlohmann::json>> wrong = {
      {"model_type", "gpt2"},
      {"use_qk_norm", true},
      {"hidden_act", "relu"},
      {"num_hidden_layers", "4"},
      {"vocab_size", nullptr},
      {"num_key_value_heads", 5},
      {"head_dim", 7},
      {"rms_norm_eps", 0},
      {"partial_rotary_factor", 0.4},
      {"hidden_size", -64},
      {"rope_scaling", {{"rope_type", "llama3"}}},
      {"tie_word_embeddings", "yes"},
      {"eos_token_id", {2, "x"}},
      {"rope_parameters", {{"rope_type", "yarn"}}},
      {"rope_scaling", {{"rope_type", "mrope"}}}};
  for (const auto& [key, value] : wrong) {
    nlohmann::json config = json_of(config_);
    config[key] = value;
    write_folder(folder_.path(), config, tensors_);
    EXPECT_THAT(complaint(folder_.path()), AllOf(HasSubstr("config.json"), HasSubstr(key)));
  }
}

TEST_F(Loading, ReadsRopeThetaInBothPlacesItIsWritten) {
  nlohmann::json config = json_of(config_);
  config.erase("rope_theta");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  write_folder(folder_.path(), config, tensors_);
  EXPECT_EQ(read_model_config(folder_.path()).ropes.front().theta, 500000.0);
}

TEST_F(Loading, RefusesAFolderWithoutAConfig) {
  EXPECT_THAT(complaint(folder_.path()), HasSubstr("config.json"));
}

}  // namespace
}  // namespace efface::testing
