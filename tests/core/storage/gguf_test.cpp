#include "core/storage/gguf.hpp"

#include <nlohmann/json.hpp>

#include "core/storage/gguf_file.hpp"
#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "tests/core/storage/gguf_builder.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface {
namespace {

using nlohmann::json;
using testing::raw;
using testing::TemporaryFolder;
using testing::tiny_llama;
using testing::write_bytes;

std::string bytes_of(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

/// Blocks of `count` values in all, read as fp32.
std::string dequantized(uint32_t type, const std::string& blocks, uint64_t count = 32) {
  TemporaryFolder folder;
  testing::GgufBuilder gguf;
  gguf.tensors.push_back({"x", {count}, type, blocks, {}});
  write_bytes(folder / "a.gguf", gguf.build());
  const at::Tensor values = GgufFile(folder / "a.gguf").read("x");
  return {static_cast<const char*>(values.data_ptr()), values.nbytes()};
}

json read_json(const std::filesystem::path& file) { return json::parse(read_text_file(file)); }

// Expected bits: the Python package gguf 0.19, quants.dequantize().
TEST(Gguf, Q4_1BlocksGiveTheBitsOfTheReference) {
  std::string block = bytes_of("9829f6b4");
  for (int i = 0; i < 16; ++i) block.push_back(static_cast<char>((i * 37 + 11) % 256));
  EXPECT_EQ(
      dequantized(3, block),
      bytes_of("00c02e3e00c09ebe0080bbbd0000023e00e0b03e00800abe0080aa3d00809a3e004037be0000223d0020843e0000"
               "64be000088bb00805b3e006088be000044bd00c09ebe004037be0080bbbd000088bb0080aa3d00805b3e00809a3e"
               "00c09ebe004037be0080bbbd000088bb0000023e00805b3e00809a3e006088be004037be"));
}

TEST(Gguf, Q8_0BlocksGiveTheBitsOfTheReferenceWithASubnormalScale) {
  std::string block = bytes_of("7c00");
  for (int i = 0; i < 32; ++i) block.push_back(static_cast<char>((i * 91 + 7) % 256));
  EXPECT_EQ(
      dequantized(8, block),
      bytes_of("0000593800e03d3a00d001ba00003a3900d05e3a00c0c1b900e09e39004070ba00c07fb900c0e03900504fba0000"
               "f8b80050113a00602eba0000f8360040323a00700dba00800b390030533a0000d9b900a087390020743a002097b9"
               "0080c93900f05aba00802ab900b0053a00003aba00001bb800a0263a001019ba0000ba38"));
}

struct BlockCase {
  const char* name;
  uint32_t number;
  int64_t values;              // of three blocks
  size_t bytes;                // a block
  std::vector<size_t> halves;  // where a block has its fp16 scales
  const char* hash;
};

class GgufBlocks : public ::testing::TestWithParam<BlockCase> {};

// Expected hashes: the Python package gguf 0.17.1, quants.dequantize(), of the same bytes.
TEST_P(GgufBlocks, GiveTheBitsOfTheReference) {
  const BlockCase& block = GetParam();
  std::string bytes;
  for (size_t i = 0; i < 3 * block.bytes; ++i) bytes.push_back(static_cast<char>(i * 37 + 11 + i / 7 * 5));
  const std::string scales[] = {bytes_of("1b29"), bytes_of("f6b4"),
                                bytes_of("6500")};  // the last is subnormal
  for (size_t k = 0; k < 3; ++k)
    for (size_t j = 0; j < block.halves.size(); ++j)
      bytes.replace(k * block.bytes + block.halves[j], 2, scales[(k + j) % 3]);
  if (block.halves.empty())  // whole numbers of 16 bits: no infinities
    for (size_t i = 1; i < bytes.size(); i += 2)
      bytes[i] = static_cast<char>(bytes[i] & (block.name == std::string("BF16") ? 0xBF : 0xFB));
  EXPECT_EQ(hash_text(dequantized(block.number, bytes, block.values)), block.hash);
}

INSTANTIATE_TEST_SUITE_P(Types, GgufBlocks,
                         ::testing::Values(BlockCase{"Q4_0", 2, 96, 18, {0}, "d39b272ec4528495"},
                                           BlockCase{"Q4_1", 3, 96, 20, {0, 2}, "3a855ef8ef98b31f"},
                                           BlockCase{"Q5_0", 6, 96, 22, {0}, "89d63ffa0f61129b"},
                                           BlockCase{"Q5_1", 7, 96, 24, {0, 2}, "caf227a740484d30"},
                                           BlockCase{"Q8_0", 8, 96, 34, {0}, "744425c845cfe8e8"},
                                           BlockCase{"Q4_K", 12, 768, 144, {0, 2}, "9dcda5e09dcf5ce3"},
                                           BlockCase{"Q5_K", 13, 768, 176, {0, 2}, "c10b9c3e2c97ff4b"},
                                           BlockCase{"Q6_K", 14, 768, 210, {208}, "c3b28498ec0911b1"},
                                           BlockCase{"BF16", 30, 96, 64, {}, "7313e70a0fd5f945"},
                                           BlockCase{"F16", 1, 96, 64, {}, "26e7e36b689d73c3"}),
                         [](const auto& info) { return info.param.name; });

TEST(Gguf, AModelBecomesAFolder) {
  TemporaryFolder folder;
  write_bytes(folder / "a.gguf", tiny_llama().build());
  import_gguf(folder / "a.gguf", folder / "model");
  const json config = read_json(folder / "model" / "config.json");
  const json expected = {{"model_type", "llama"},
                         {"architectures", {"LlamaForCausalLM"}},
                         {"hidden_size", 32},
                         {"intermediate_size", 48},
                         {"num_hidden_layers", 1},
                         {"num_attention_heads", 2},
                         {"num_key_value_heads", 1},
                         {"head_dim", 16},
                         {"vocab_size", 8},
                         {"max_position_embeddings", 64},
                         {"rms_norm_eps", 1e-5},
                         {"rope_theta", 10000.0},
                         {"tie_word_embeddings", true},
                         {"torch_dtype", "float32"},
                         {"bos_token_id", 1},
                         {"eos_token_id", 2},
                         {"pad_token_id", 2}};
  for (const auto& [key, value] : expected.items()) EXPECT_EQ(config.at(key), value) << key;

  const auto weights = SafetensorsReader::open_folder(folder / "model");
  EXPECT_EQ(weights.names().size(), 11u);
  EXPECT_EQ(weights.shape("model.layers.0.mlp.down_proj.weight"), (std::vector<int64_t>{32, 48}));
  EXPECT_TRUE(at::equal(weights.read("model.embed_tokens.weight"), (at::arange(256) / 1024.0).view({8, 32})));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2)
      << "no temporary folder";
}

TEST(Gguf, RowsOfQueryAndKeyGoFromPairsToHalvesHeadByHead) {
  TemporaryFolder folder;
  write_bytes(folder / "a.gguf", tiny_llama().build());
  import_gguf(folder / "a.gguf", folder / "model");
  const auto weights = SafetensorsReader::open_folder(folder / "model");
  const GgufFile gguf(folder / "a.gguf");
  for (const auto& [name, source, heads] :
       {std::tuple{"q_proj", "attn_q", 2}, std::tuple{"k_proj", "attn_k", 1}}) {
    const at::Tensor ours = weights.read(std::string("model.layers.0.self_attn.") + name + ".weight");
    const at::Tensor theirs = gguf.read(std::string("blk.0.") + source + ".weight");
    for (int head = 0; head < heads; ++head)
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 8; ++i)
          EXPECT_TRUE(at::equal(ours[head * 16 + half * 8 + i], theirs[head * 16 + 2 * i + half]))
              << name << " head " << head << " half " << half << " row " << i;
  }
  EXPECT_TRUE(
      at::equal(weights.read("model.layers.0.self_attn.v_proj.weight"), gguf.read("blk.0.attn_v.weight")));
}

TEST(Gguf, AHeadOfItsOwnIsWrittenAndTheDtypeIsAChoice) {
  TemporaryFolder folder;
  auto gguf = tiny_llama();
  gguf.set_fp32("output.weight", {32, 8}, std::vector<float>(256, 0.5f));
  write_bytes(folder / "a.gguf", gguf.build());
  import_gguf(folder / "a.gguf", folder / "model", {at::kBFloat16});
  const auto weights = SafetensorsReader::open_folder(folder / "model");
  EXPECT_EQ(weights.dtype("lm_head.weight"), at::kBFloat16);
  const json config = read_json(folder / "model" / "config.json");
  EXPECT_EQ(config.at("tie_word_embeddings"), false);
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
}

TEST(Gguf, TheTokenizerIsThatOfSmolLm) {
  TemporaryFolder folder;
  write_bytes(folder / "a.gguf", tiny_llama().build());
  GgufImportOptions options;
  options.chat_template = GgufChatTemplate::chatml;
  import_gguf(folder / "a.gguf", folder / "model", options);
  const json tokenizer = read_json(folder / "model" / "tokenizer.json");
  EXPECT_EQ(tokenizer.at("model").at("vocab").at("abb"), 7);
  EXPECT_EQ(tokenizer.at("model").at("merges"), json::parse(R"([["a","b"],["ab","b"]])"));
  EXPECT_TRUE(tokenizer.at("post_processor").is_null());
  EXPECT_EQ(tokenizer.at("pre_tokenizer").at("pretokenizers").at(0),
            json::parse(R"({"type":"Digits","individual_digits":true})"));
  EXPECT_EQ(tokenizer.at("pre_tokenizer").at("pretokenizers").at(1).at("type"), "ByteLevel");
  EXPECT_EQ(tokenizer.at("pre_tokenizer").at("pretokenizers").at(1).at("add_prefix_space"), false);
  ASSERT_EQ(tokenizer.at("added_tokens").size(), 3u);
  EXPECT_EQ(tokenizer.at("added_tokens").at(1).at("content"), "<|im_start|>");
  EXPECT_EQ(tokenizer.at("added_tokens").at(1).at("normalized"), false);
  const json config = read_json(folder / "model" / "tokenizer_config.json");
  EXPECT_EQ(config.at("eos_token"), "<|im_end|>");
  EXPECT_EQ(config.at("pad_token"), "<|im_end|>");
  EXPECT_EQ(std::string(config.at("chat_template")).find("system"), std::string::npos);
}

TEST(Gguf, ABosTokenIsPutInFrontOnlyWhereTheFileAsksForIt) {
  TemporaryFolder folder;
  auto gguf = tiny_llama();
  gguf.set("tokenizer.ggml.add_bos_token", true);
  write_bytes(folder / "a.gguf", gguf.build());
  import_gguf(folder / "a.gguf", folder / "model");
  const json post = read_json(folder / "model" / "tokenizer.json").at("post_processor");
  EXPECT_EQ(post.at("type"), "TemplateProcessing");
  EXPECT_EQ(post.at("single").at(0).at("SpecialToken").at("id"), "<|im_start|>");
  EXPECT_EQ(post.at("special_tokens").at("<|im_start|>").at("ids"), json::array({1}));
}

TEST(Gguf, TheChatTemplateIsTheFilesOwn) {
  TemporaryFolder folder;
  auto gguf = tiny_llama();
  write_bytes(folder / "a.gguf", gguf.build());
  import_gguf(folder / "a.gguf", folder / "without");
  EXPECT_FALSE(read_json(folder / "without" / "tokenizer_config.json").contains("chat_template"));
  gguf.set("tokenizer.chat_template", "{{ messages }}");
  write_bytes(folder / "a.gguf", gguf.build());
  import_gguf(folder / "a.gguf", folder / "with");
  EXPECT_EQ(read_json(folder / "with" / "tokenizer_config.json").at("chat_template"), "{{ messages }}");
}

TEST(Gguf, ScoresOfSentencePieceBecomeMerges) {
  TemporaryFolder folder;
  auto gguf = tiny_llama();
  gguf.set("tokenizer.ggml.model", "llama");
  gguf.set("tokenizer.ggml.tokens",
           std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x00>", "a", "b", "ab", "abb"});
  gguf.set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 6, 1, 1, 1, 1});
  gguf.set("tokenizer.ggml.unknown_token_id", 0u);
  std::string scores = raw<uint32_t>(9) + raw<uint32_t>(6) + raw<uint64_t>(8);
  for (const float score : {0.f, 0.f, 0.f, 0.f, -9.f, -8.f, -2.f, -1.f}) scores += raw(score);
  gguf.set_raw("tokenizer.ggml.scores", scores);
  write_bytes(folder / "a.gguf", gguf.build());
  import_gguf(folder / "a.gguf", folder / "model");
  const json tokenizer = read_json(folder / "model" / "tokenizer.json");
  EXPECT_EQ(tokenizer.at("model").at("merges"), json::parse(R"([["ab","b"],["a","b"]])"));
  EXPECT_EQ(tokenizer.at("model").at("byte_fallback"), true);
  EXPECT_EQ(tokenizer.at("model").at("unk_token"), "<unk>");
  EXPECT_EQ(tokenizer.at("added_tokens").size(), 3u);
  EXPECT_EQ(tokenizer.at("post_processor").at("single").at(0).at("SpecialToken").at("id"), "<s>")
      << "the begin of a text is put in front unless the file says no";
}

TEST(Gguf, AFolderThatIsThereAlreadyIsLeftAlone) {
  TemporaryFolder folder;
  write_bytes(folder / "a.gguf", tiny_llama().build());
  std::filesystem::create_directory(folder / "model");
  write_bytes(folder / "model" / "mine", "x");
  EXPECT_THROW(import_gguf(folder / "a.gguf", folder / "model"), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "model"), {}), 1);
  std::filesystem::create_directory(folder / "empty");
  EXPECT_NO_THROW(import_gguf(folder / "a.gguf", folder / "empty"));
}

}  // namespace
}  // namespace efface
