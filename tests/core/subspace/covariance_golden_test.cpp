// Covariances of SmolLM2-135M against an independent PyTorch implementation in fp64 (the shared data's
// goldens): 512 tokens of wikitext, every position counted, no cap. EFFACE_SMOLLM2 names the model's folder.
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/subspace/eigen_stage.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

using nlohmann::json;

InputId input_of_golden(const std::string& name) {
  const size_t dot = name.find('.');
  const std::map<std::string, Input> inputs{
      {"qkv", Input::qkv}, {"o", Input::o}, {"gu", Input::gate_up}, {"down", Input::down}};
  return {std::stoi(name.substr(0, dot)), inputs.at(name.substr(dot + 1))};
}

// SmolLM2 has 9 heads and 3 key-value heads: 1 or 3 tensor ranks. On three data ranks one has no rows.
class CovarianceGolden : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Tensor, CovarianceGolden, ::testing::Values(1, 3));

TEST_P(CovarianceGolden, TracesEigenvaluesAndRanksAreThoseOfTheReference) {
  EFFACE_NEEDS_SHARED_DATA(data);
  const char* folder = std::getenv("EFFACE_SMOLLM2");
  if (!folder || !std::filesystem::exists(folder)) GTEST_SKIP() << "EFFACE_SMOLLM2 names no model folder";
  EFFACE_NEEDS_RANKS(world().size() == GetParam() || (world().size() <= 3 && GetParam() == 1));
  const Mesh mesh = make_mesh(world(), GetParam(), 0);

  std::ifstream file(data / "goldens" / "smollm2_reference.json");
  const json golden = json::parse(file).at("fp64");
  std::ifstream text_file(data / "wikitext" / "wiki.valid.raw");
  std::string text(8000, '\0');
  text_file.read(text.data(), static_cast<std::streamsize>(text.size()));
  const auto ids = Tokenizer::load(folder).encode(text);
  const auto first = golden.at("cov_input").at("first16").get<std::vector<int64_t>>();
  ASSERT_TRUE(ids.size() > 512 && std::equal(first.begin(), first.end(), ids.begin()));
  std::vector<TokenRow> rows;
  for (int row = mesh.data_rank(); row < 2; row += mesh.data_size())
    rows.push_back({{ids.begin() + 256 * row, ids.begin() + 256 * (row + 1)}, 256});

  const json& expected = golden.at("covariance");
  std::vector<InputId> inputs;
  for (const auto& [name, values] : expected.items()) inputs.push_back(input_of_golden(name));
  std::sort(inputs.begin(), inputs.end());
  const Transformer model = Transformer::load(folder, mesh);
  CovarianceAccumulator accumulator(model.config(), mesh, inputs, {.skip_sinks = false});
  const RaggedBatch batch = make_batch(rows);
  {
    const at::NoGradGuard no_grad;
    model.forward(batch, &accumulator.taps(batch));
  }
  const auto covariances = accumulator.finish();
  const TemporaryFolder bases(TemporaryFolder::Kind::shared);
  BasisWriter writer(bases.path(), world());
  solve_bases(covariances, mesh, {}, writer);
  writer.finish();
  const BasisStore store = BasisStore::open(bases.path());

  for (const auto& [name, values] : expected.items()) {
    const InputId id = input_of_golden(name);
    const auto covariance =
        std::find_if(covariances.begin(), covariances.end(), [&](const Covariance& c) { return c.id == id; });
    const double reference = values.at("trace");
    EXPECT_NEAR(trace(covariance->matrix), reference, 1e-5 * reference) << name;
    const double norm = values.at("fro");
    EXPECT_NEAR(frobenius_norm(covariance->matrix), norm, 1e-5 * norm) << name;
    EXPECT_EQ(covariance->tokens, 512);
    const at::Tensor spectrum = store.read(id).eigenvalues;
    const auto top = values.at("top5").get<std::vector<double>>();
    for (size_t i = 0; i < top.size(); ++i)
      EXPECT_NEAR(spectrum[static_cast<int64_t>(i)].item<double>(), top[i], 1e-4 * top[0])
          << name << " " << i;
    for (const auto& [key, energy] : {std::pair{"k90", 0.9}, {"k95", 0.95}, {"k99", 0.99}})
      EXPECT_EQ(choose_rank(spectrum, {RankRule::Kind::energy, energy}, name), values.at(key).get<int64_t>())
          << name;
  }
}

}  // namespace
}  // namespace efface::testing
