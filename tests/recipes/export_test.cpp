// What config.json of an exported folder says of its tensors.
#include <gtest/gtest.h>

#include "recipes/stages/export_formats.hpp"
#include "tests/recipes/tiny_run.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface {
namespace {

class Export : public ::testing::Test {
 protected:
  /// config.json of an export of a model whose own says bfloat16 under `dtype_keys`.
  nlohmann::json exported_config(const std::vector<std::string>& dtype_keys, bool fp32) const {
    testing::write_tiny_model(folder_ / "model");
    auto config = nlohmann::json::parse(read_text_file(folder_ / "model/config.json"));
    config.erase("torch_dtype");
    for (const auto& key : dtype_keys) config[key] = "bfloat16";
    write_text_file(folder_ / "model/config.json", config.dump());
    ModelUpdate update;
    update.matrices[{0, Projection::down}] = at::ones({32, 48});
    export_huggingface(folder_ / "model", folder_ / "exported", update, fp32, "");
    return nlohmann::json::parse(read_text_file(folder_ / "exported/config.json"));
  }

  testing::TemporaryFolder folder_;
};

TEST_F(Export, InFp32IsNamedSoUnderWhateverKeyTheSourceHas) {
  for (const std::vector<std::string>& keys :
       {std::vector<std::string>{"torch_dtype"}, {"dtype"}, {"dtype", "torch_dtype"}}) {
    auto config = exported_config(keys, true);
    for (const auto& key : keys) {
      EXPECT_EQ(config.at(key), "float32");
      config.erase(key);
    }
    EXPECT_FALSE(config.contains("dtype") || config.contains("torch_dtype")) << keys.front();
    EXPECT_EQ(config.at("hidden_size"), 32) << "the rest stays";
  }
  EXPECT_EQ(exported_config({}, true).at("torch_dtype"), "float32") << "where the source has neither";
}

TEST_F(Export, InTheSourcesDtypeKeepsItsConfig) {
  EXPECT_EQ(exported_config({"torch_dtype"}, false).at("torch_dtype"), "bfloat16");
}

}  // namespace
}  // namespace efface
