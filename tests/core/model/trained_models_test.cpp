// Trained models give the losses that other programs measured on them.
#include <ATen/core/grad_mode.h>

#include <fstream>

#include "core/storage/llama2c.hpp"
#include "tests/core/model/small_model.hpp"
#include "tests/support/llama2c.hpp"

namespace efface::testing {
namespace {

double mean_loss(const Transformer& model, const std::vector<std::vector<int64_t>>& rows) {
  const at::NoGradGuard no_grad;
  std::vector<TokenRow> batch;
  for (const auto& ids : rows) batch.push_back({ids, 1});
  return -model.label_log_probabilities(make_batch(batch)).to(at::kDouble).mean().item<double>();
}

struct Story {
  std::string folder, model, tokenizer;
  size_t context;
  double loss;
};

class Llama2c : public ::testing::TestWithParam<Story> {};

TEST_P(Llama2c, LossIsThatOfItsOwnProgram) {
  EFFACE_NEEDS_SHARED_DATA(data);
  EFFACE_NEEDS_RANKS(4 % world().size() == 0);
  const auto models = data / "models";
  const auto source = models / GetParam().folder;
  TemporaryFolder folder;
  const auto imported = folder / "model";
  import_llama2c(source / GetParam().model, source / GetParam().tokenizer, imported);
  const auto rows = llama2c_sample_rows(models / "cs336_tinystories_sample.txt",
                                        source / GetParam().tokenizer, GetParam().context);
  const Mesh mesh = make_mesh(world(), world().size(), 1);
  EXPECT_NEAR(mean_loss(Transformer::load(imported, mesh), rows), GetParam().loss, 1e-3);
  EXPECT_NEAR(mean_loss(Transformer::load(imported, mesh, {at::kBFloat16}), rows), GetParam().loss, 2e-2);
}

INSTANTIATE_TEST_SUITE_P(Models, Llama2c,
                         ::testing::Values(Story{"stories260K", "stories260K.bin", "tok512.bin", 512, 1.3239},
                                           Story{"babyllama105", "model5000.bin", "tok105.bin", 256, 0.7219}),
                         [](const auto& info) { return info.param.folder; });

TEST(SmolLM2, LossAndBestLogitsAreThoseOfTransformers) {
  EFFACE_NEEDS_SHARED_DATA(data);
  const char* folder = std::getenv("EFFACE_SMOLLM2");
  if (folder == nullptr) GTEST_SKIP() << "SmolLM2 not present";
  EFFACE_NEEDS_RANKS(3 % world().size() == 0);
  const auto golden =
      nlohmann::json::parse(std::ifstream(data / "goldens" / "smollm2_reference.json"))["fp32"];
  const auto& forward = golden["forward"];
  const std::vector<int64_t> ids = golden["tokenizer"][forward["text"].get<std::string>()];

  const Transformer model = Transformer::load(folder, make_mesh(world(), world().size(), 1));
  EXPECT_NEAR(mean_loss(model, {ids}), forward["mean_nll"].get<double>(), 1e-4);
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = model.forward(make_batch({{ids, 1}}));
  const at::Tensor logits = model.logits(hidden.narrow(0, hidden.size(0) - 1, 1)).squeeze(0);
  for (const auto& pair : forward["last_top5"])
    EXPECT_NEAR(logits[pair[0].get<int64_t>()].item<double>(), pair[1].get<double>(), 1e-3);
}

}  // namespace
}  // namespace efface::testing
