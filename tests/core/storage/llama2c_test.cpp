#include "core/storage/llama2c.hpp"

#include <nlohmann/json.hpp>

#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"
#include "tests/support/llama2c.hpp"

namespace efface {
namespace {

using testing::llama2c_encode;
using testing::llama2c_sample_rows;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

TEST(Llama2c, TheTrainedModelsHaveTheSizesTheirAuthorsGive) {
  EFFACE_NEEDS_SHARED_DATA(data);
  TemporaryFolder folder;
  const auto stories = data / "models" / "stories260K", baby = data / "models" / "babyllama105";
  import_llama2c(stories / "stories260K.bin", stories / "tok512.bin", folder / "stories");
  import_llama2c(baby / "model5000.bin", baby / "tok105.bin", folder / "baby");
  const auto config = nlohmann::json::parse(read_text_file(folder / "stories" / "config.json"));
  EXPECT_EQ(config.at("hidden_size"), 64);
  EXPECT_EQ(config.at("intermediate_size"), 172);
  EXPECT_EQ(config.at("num_key_value_heads"), 4);
  EXPECT_EQ(config.at("vocab_size"), 512);
  int64_t parameters = 0;
  const auto reader = SafetensorsReader::open_folder(folder / "baby");
  for (const auto& name : reader.names()) parameters += reader.read(name).numel();
  EXPECT_NEAR(static_cast<double>(parameters), 0.94e6, 0.005e6);
}

TEST(Llama2c, TheSampleHasTheNumbersOfTokensThatTheKnownLossesAreOver) {
  EFFACE_NEEDS_SHARED_DATA(data);
  const auto models = data / "models", sample = models / "cs336_tinystories_sample.txt";
  const auto predicted = [](const std::vector<std::vector<int64_t>>& rows) {
    size_t tokens = 0;
    for (const auto& row : rows) tokens += row.size() - 1;
    return tokens;
  };
  EXPECT_EQ(predicted(llama2c_sample_rows(sample, models / "stories260K" / "tok512.bin", 512)), 1826u);
  EXPECT_EQ(predicted(llama2c_sample_rows(sample, models / "babyllama105" / "tok105.bin", 256)), 1275u);
}

TEST(Llama2c, AModelOfTheWrongSizeIsRefusedAndLeavesNothing) {
  EFFACE_NEEDS_SHARED_DATA(data);
  TemporaryFolder folder;
  const auto stories = data / "models" / "stories260K";
  const std::string good = read_bytes(stories / "stories260K.bin"),
                    tokens = read_bytes(stories / "tok512.bin");
  std::string many_layers = good, negative = good;
  many_layers[8 + 2] = 0x0f;
  negative[3] = static_cast<char>(0xff);
  for (const std::string& bad : {std::string(), good.substr(0, 20), good.substr(0, good.size() - 4),
                                 good + "1234", many_layers, negative}) {
    write_bytes(folder / "m.bin", bad);
    EXPECT_THROW(import_llama2c(folder / "m.bin", stories / "tok512.bin", folder / "out"), Error);
  }
  write_bytes(folder / "t.bin", tokens.substr(0, tokens.size() - 1));
  EXPECT_THROW(import_llama2c(stories / "stories260K.bin", folder / "t.bin", folder / "out"), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
}

}  // namespace
}  // namespace efface
