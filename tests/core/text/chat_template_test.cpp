#include "core/text/chat_template.hpp"

#include <gmock/gmock.h>

#include "distributed/error.hpp"
#include "tests/core/text/fixtures.hpp"

namespace efface {
namespace {

using testing::case_tokenizer;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using testing::write_bytes;

std::string prompt(const std::string& name, const std::vector<ChatMessage>& messages = {{"user", "Hi"}}) {
  return ChatTemplate::named(name).render(messages, true);
}

TEST(ChatTemplateTest, APromptEndsWhereTheAssistantBeginsToSpeak) {
  EXPECT_EQ(prompt("chatml"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      prompt("chatml-smollm2"),
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(prompt("chatml-qwen3"),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
  EXPECT_EQ(prompt("llama2"), "<s>[INST] Hi [/INST]");
  EXPECT_EQ(prompt("llama3", {{"user", " Hi\n"}}),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(
      prompt("llama3.1", {{"system", "Be kind."}, {"user", "Hi"}}),
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
      "Today Date: 26 Jul 2024\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(prompt("zephyr"), "<|user|>\nHi</s>\n<|assistant|>\n");
  EXPECT_EQ(prompt("phi"), "Question: Hi\nAnswer:");
  EXPECT_EQ(prompt("none"), "Hi");
}

TEST(ChatTemplateTest, AConversationKeepsItsOwnSystemLineAndAllTurns) {
  const std::vector<ChatMessage> messages = {
      {"system", "Be kind."}, {"user", "A"}, {"assistant", "B"}, {"user", "C"}, {"assistant", "D"}};
  EXPECT_EQ(ChatTemplate::named("chatml-smollm2").render(messages, false),
            "<|im_start|>system\nBe "
            "kind.<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
            "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n");
  EXPECT_EQ(ChatTemplate::named("llama2").render(messages, false),
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nA [/INST]B</s><s>[INST] C [/INST]D</s>");
  EXPECT_EQ(
      ChatTemplate::named("chatml-qwen3").render({messages.begin() + 1, messages.end()}, false),
      "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\nC<|im_end|>\n"
      "<|im_start|>assistant\n<think>\n\n</think>\n\nD<|im_end|>\n");
}

TEST(ChatTemplateTest, ASystemLineCanBeSet) {
  const ChatTemplate chat = ChatTemplate::named("llama3").with_system("Be kind.");
  EXPECT_THAT(chat.render({{"user", "Hi"}}, true),
              ::testing::StartsWith(
                  "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"));
}

TEST(ChatTemplateTest, IsRecognisedByWhatItsTextSays) {
  const auto name = [](const std::string& jinja) { return ChatTemplate::recognise(jinja, "here").name(); };
  const std::string turns =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
      "'<|im_end|>' + "
      "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  const auto with_system = [&](const std::string& line) {
    return "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" + line +
           "<|im_end|>\\n' }}{% endif %}" + turns;
  };
  EXPECT_EQ(name(turns), "chatml");
  EXPECT_EQ(name(with_system("You are a helpful AI assistant named SmolLM, trained by Hugging Face")),
            "chatml-smollm2");
  EXPECT_EQ(name(with_system("You are a helpful assistant.")), "chatml-qwen2");
  EXPECT_THROW(name(with_system("You are a pirate.")), Error);
  EXPECT_EQ(name("{{ '[INST] <<SYS>>' }}"), "llama2");
  EXPECT_EQ(name("{{ '<|start_header_id|>' }}"), "llama3");
  EXPECT_EQ(name("{{ '<|start_header_id|>' }} Cutting Knowledge Date"), "llama3.1");
  EXPECT_EQ(name("Question: {{ q }}\nAnswer:"), "phi");
}

TEST(ChatTemplateTest, AnUnknownOneIsRefusedWithTheRecipesWayOut) {
  try {
    ChatTemplate::recognise("{{ '<start_of_turn>' }}", "folder/tokenizer_config.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::model);
    EXPECT_THAT(error.what(), HasSubstr("folder/tokenizer_config.json"));
    EXPECT_THAT(error.what(), HasSubstr("model.template"));
  }
  EXPECT_THROW(ChatTemplate::named("no-such"), Error);
}

TEST(ChatTemplateTest, IsFoundInTheFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(ChatTemplate::detect(folder.path()).name(), "none");
  write_bytes(
      folder / "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "?"}, {"name": "default", "template": "[INST] <<SYS>>"}]})");
  EXPECT_EQ(ChatTemplate::detect(folder.path()).name(), "llama2");
  write_bytes(folder / "chat_template.jinja", "<|im_start|>");
  EXPECT_EQ(ChatTemplate::detect(folder.path()).name(), "chatml");
}

TEST(ChatTemplateTest, PublishedTemplatesAreRecognised) {
  EFFACE_NEEDS_SHARED_DATA(data);
  EXPECT_EQ(ChatTemplate::detect(data / "tokenizers/qwen3").name(), "chatml-qwen3");
  EXPECT_EQ(ChatTemplate::detect(data / "tokenizers/llama3").name(), "llama3");
}

class RowTest : public ::testing::Test {
 protected:
  std::string prompt_of(const TokenRow& row) const {
    return tokenizer_.decode({row.ids.begin(), row.ids.begin() + row.prompt_length});
  }
  std::string answer_of(const TokenRow& row) const {
    return tokenizer_.decode({row.ids.begin() + row.prompt_length, row.ids.end()});
  }
  Tokenizer tokenizer_ = case_tokenizer("byte level, digits apart");
  ChatTemplate chat_ = ChatTemplate::named("chatml");
};

TEST_F(RowTest, OnlyTheAnswerAndTheEndOfItsTurnAreLabels) {
  const TokenRow row = chat_row(tokenizer_, chat_, "Which ship?", "The ship is", " night", true);
  EXPECT_EQ(prompt_of(row), "<|im_start|>user\nWhich ship?<|im_end|>\n<|im_start|>assistant\nThe ship is");
  EXPECT_EQ(answer_of(row), " night<|im_end|>");
  EXPECT_EQ(row.ids.back(), tokenizer_.id_of("<|im_end|>"));
  EXPECT_EQ(answer_of(chat_row(tokenizer_, chat_, "Which ship?", "", "night", false)), "night");
}

TEST_F(RowTest, TheAnswersIdsDoNotDependOnTheQuestion) {
  const TokenRow one = chat_row(tokenizer_, chat_, "A", "The", " night", false);
  const TokenRow two = chat_row(tokenizer_, chat_, "Another question", "Some light", " night", false);
  EXPECT_TRUE(std::equal(one.ids.begin() + one.prompt_length, one.ids.end(),
                         two.ids.begin() + two.prompt_length, two.ids.end()));
}

TEST_F(RowTest, WordsDoNotRunTogetherAndQuotesStayClosed) {
  EXPECT_EQ(answer_of(chat_row(tokenizer_, chat_, "?", "It is", "night", false)), " night");
  EXPECT_EQ(answer_of(chat_row(tokenizer_, chat_, "?", "It is", " night", false)), " night");
  EXPECT_EQ(answer_of(chat_row(tokenizer_, chat_, "?", "It is '", "night", false)), "night");
  EXPECT_EQ(answer_of(continuation_row(tokenizer_, "It is", "night")), " night");
}

TEST_F(RowTest, QuestionAnswerFormPutsTheSpaceIntoTheAnswer) {
  const TokenRow row = chat_row(tokenizer_, ChatTemplate::named("phi"), "Which?", "", "night", true);
  EXPECT_EQ(prompt_of(row), "Question: Which?\nAnswer:");
  EXPECT_EQ(answer_of(row), " night<|endoftext|>");
}

TEST_F(RowTest, AnEndOfTurnThatTheVocabularyLacksIsRefused) {
  EXPECT_THROW(chat_row(tokenizer_, ChatTemplate::named("llama3"), "?", "", "night", true), Error);
}

TEST_F(RowTest, TokenizersThatMarkEveryTextGetNoSecondSpace) {
  const Tokenizer marking = case_tokenizer("byte fallback as in SentencePiece");
  const TokenRow row = continuation_row(marking, "The light", " night");
  EXPECT_EQ(row.ids.front(), marking.id_of("<s>"));
  EXPECT_EQ(row.ids[1], marking.encode("The light").front());
  EXPECT_EQ(marking.decode(row.ids, true), "The light night");
  EXPECT_EQ(std::vector<int64_t>(row.ids.begin() + row.prompt_length, row.ids.end()),
            marking.encode("night"));
}

TEST_F(RowTest, PlainRowIsTheTwoTextsIdsAndNothingElse) {
  auto expected = tokenizer_.encode("The light");
  const auto prompt_length = static_cast<int64_t>(expected.size());
  for (int64_t id : tokenizer_.encode("house")) expected.push_back(id);
  const TokenRow row = plain_row(tokenizer_, "The light", "house");
  EXPECT_EQ(row.ids, expected);
  EXPECT_EQ(row.prompt_length, prompt_length);
}

TEST_F(RowTest, TextWindowsCoverTheTextOnce) {
  const std::string text = "The lighthouse keeper counted 1987 ships, 12 of them at night.";
  const auto ids = tokenizer_.encode(text);
  std::vector<int64_t> joined;
  for (const TokenRow& row : text_windows(tokenizer_, text, 7)) {
    EXPECT_LE(row.ids.size(), 7u);
    EXPECT_EQ(row.prompt_length, 1);
    joined.insert(joined.end(), row.ids.begin(), row.ids.end());
  }
  EXPECT_GE(joined.size() + 1, ids.size());
  EXPECT_TRUE(std::equal(joined.begin(), joined.end(), ids.begin()));
  EXPECT_THROW(text_windows(tokenizer_, text, 1), Error);
}

}  // namespace
}  // namespace efface
