// The tokenizer against the reference library: ids and texts in fixtures/tokenizer_cases.json were written by
// it.
#include "core/text/tokenizer.hpp"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "distributed/error.hpp"
#include "tests/core/text/fixtures.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::case_tokenizer;
using ::testing::HasSubstr;
using testing::load_tokenizer;
using testing::tokenizer_cases;

TEST(TokenizerTest, EveryKindGivesTheReferencesIdsAndTexts) {
  const auto all = tokenizer_cases();
  ASSERT_GE(all["cases"].size(), 10u);
  for (const auto& one : all["cases"]) {
    SCOPED_TRACE(one["name"].get<std::string>());
    const Tokenizer tokenizer = case_tokenizer(one["name"]);
    for (const auto& row : one["rows"]) {
      const auto text = row["text"].get<std::string>();
      SCOPED_TRACE("text: '" + text + "'");
      const auto ids = row["ids"].get<std::vector<int64_t>>();
      EXPECT_EQ(tokenizer.encode(text), ids);
      EXPECT_EQ(tokenizer.encode(text, true), row["with_special"].get<std::vector<int64_t>>());
      EXPECT_EQ(tokenizer.decode(ids), row["decoded"].get<std::string>());
      EXPECT_EQ(tokenizer.decode(ids, true), row["decoded_without_special"].get<std::string>());
    }
  }
}

TEST(TokenizerTest, NamesTokensAndTheirIds) {
  const Tokenizer tokenizer = case_tokenizer("byte level, digits apart");
  const int64_t start = tokenizer.id_of("<|im_start|>");
  ASSERT_GE(start, 0);
  EXPECT_EQ(tokenizer.token_of(start), "<|im_start|>");
  EXPECT_TRUE(tokenizer.is_special(start));
  EXPECT_FALSE(tokenizer.is_special(tokenizer.id_of("a")));
  EXPECT_EQ(tokenizer.id_of("no such token"), -1);
  EXPECT_EQ(tokenizer.token_of(-1), "");
  EXPECT_EQ(tokenizer.token_of(tokenizer.vocab_size()), "");
  EXPECT_EQ(tokenizer.id_of("<|im_end|>"), tokenizer.vocab_size() - 1);
}

TEST(TokenizerTest, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  const Tokenizer tokenizer = case_tokenizer("byte level, digits apart");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\xFF\xE2\x82z")), "a\xEF\xBF\xBD\xEF\xBF\xBDz");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(std::string("a\0b", 3))), std::string("a\0b", 3));
}

TEST(TokenizerTest, ManyThreadsGiveTheSameIds) {
  const Tokenizer tokenizer = case_tokenizer("byte level, digits apart");
  const std::string text = "The lighthouse keeper counted 1987 ships, 12 of them at night.";
  const auto expected = case_tokenizer("byte level, digits apart").encode(text);
  std::vector<int> equal(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) equal[t] += tokenizer.encode(text) == expected;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(equal, ::testing::Each(200));
}

std::string message_of_loading(const nlohmann::json& tokenizer) {
  try {
    load_tokenizer(tokenizer);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::model);
    return error.what();
  }
  return "no error";
}

TEST(TokenizerTest, WhatIsNotSupportedIsNamedWithFileAndField) {
  const nlohmann::json good = {
      {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}}}, {"merges", nlohmann::json::array()}}}};
  EXPECT_EQ(message_of_loading(good), "no error");
  auto bad = good;
  bad["model"]["type"] = "WordPiece";
  EXPECT_THAT(message_of_loading(bad), HasSubstr("tokenizer.json: model.type: 'WordPiece' is not supported"));
  bad = good;
  bad["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "BertPreTokenizer"}}}}};
  EXPECT_THAT(message_of_loading(bad), HasSubstr("pre_tokenizer.pretokenizers[0].type: pre-tokenizer 'Bert"));
  bad = good;
  bad["normalizer"] = {{"type", "BertNormalizer"}};
  EXPECT_THAT(message_of_loading(bad), HasSubstr("normalizer.type"));
  bad = good;
  bad["decoder"] = {{"type", "WordPiece"}};
  EXPECT_THAT(message_of_loading(bad), HasSubstr("decoder.type"));
  bad = good;
  bad["post_processor"] = {{"type", "BertProcessing"}};
  EXPECT_THAT(message_of_loading(bad), HasSubstr("post_processor.type"));
  bad = good;
  bad["model"]["merges"] = {"a b"};
  EXPECT_THAT(message_of_loading(bad), HasSubstr("model.merges[0]"));
  bad = good;
  bad["model"].erase("vocab");
  EXPECT_THAT(message_of_loading(bad), HasSubstr("'vocab' is missing"));
  bad = good;
  bad["pre_tokenizer"] = {{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"Regex", "(["}}}};
  EXPECT_THAT(message_of_loading(bad), HasSubstr("regular expression"));
  bad = good;
  bad["model"]["end_of_word_suffix"] = "</w>";
  EXPECT_THAT(message_of_loading(bad), HasSubstr("model.end_of_word_suffix"));
}

TEST(TokenizerTest, AMissingFileIsNamed) {
  try {
    Tokenizer::load("/no/such/folder");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/no/such/folder/tokenizer.json"));
  }
}

/// llama.cpp's hard strings and their ids.
class PublishedVocabulary : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(PublishedVocabulary, GivesTheIdsOfLlamaCpp) {
  EFFACE_NEEDS_SHARED_DATA(data);
  const auto [folder, fixture] = GetParam();
  const Tokenizer tokenizer = Tokenizer::load(data / "tokenizers" / folder);
  const std::string input =
      testing::read_bytes(data / "tokenizers/fixtures" / (std::string(fixture) + ".inp"));
  std::ifstream output(data / "tokenizers/fixtures" / (std::string(fixture) + ".out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::string line;
  int checked = 0;
  for (size_t from = 0, end; (end = input.find(separator, from)) != std::string::npos;
       from = end + separator.size()) {
    const std::string text = input.substr(from, end - from);
    ASSERT_TRUE(std::getline(output, line));
    std::istringstream numbers(line);
    const std::vector<int64_t> expected{std::istream_iterator<int64_t>(numbers), {}};
    EXPECT_EQ(tokenizer.encode(text), expected) << "'" << text << "'";
    EXPECT_EQ(tokenizer.decode(expected), text);
    ++checked;
  }
  EXPECT_EQ(checked, 46);
}

INSTANTIATE_TEST_SUITE_P(TokenizerTest, PublishedVocabulary,
                         ::testing::Values(std::pair{"gpt2", "gpt-2"}, std::pair{"qwen3", "qwen2"},
                                           std::pair{"llama3", "llama-bpe"}),
                         [](const auto& info) { return std::string(info.param.first); });

}  // namespace
}  // namespace efface
