#include "core/text/dataset.hpp"

#include <gmock/gmock.h>

#include "distributed/error.hpp"
#include "tests/core/text/fixtures.hpp"

namespace efface {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::vector<Record> records(const std::string& name, const std::string& text,
                            const DataColumns& columns = {}) {
  const testing::TemporaryFolder folder;
  testing::write_bytes(folder / name, text);
  return read_records(folder / name, columns);
}

std::string message(const std::string& name, const std::string& text, const DataColumns& columns = {}) {
  try {
    records(name, text, columns);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::data);
    return error.what();
  }
  return "no error";
}

TEST(DatasetTest, JsonLinesGiveOneRecordALine) {
  const auto all =
      records("a.jsonl",
              "\xEF\xBB\xBF{\"question\": \"Q1\", \"answer\": \" A1\", \"paraphrases\": [\"P\", \"R\"]}\r\n\n"
              "{\"question\": \"Q2\", \"answer\": 7, \"rewordings\": \"W\", \"note\": null}\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].answer, " A1");
  EXPECT_THAT(all[0].paraphrases, ElementsAre("P", "R"));
  EXPECT_THAT(all[0].source, EndsWith("a.jsonl:1"));
  EXPECT_EQ(all[1].answer, "7");
  EXPECT_THAT(all[1].rewordings, ElementsAre("W"));
  EXPECT_THAT(all[1].source, EndsWith("a.jsonl:3"));
  EXPECT_TRUE(all[1].raw.contains("note"));
}

TEST(DatasetTest, AJsonArrayGivesTheLineEachRecordBeginsOn) {
  const auto all =
      records("a.json", "[\n {\"question\": \"[1]\"},\n\n {\"question\": \"a \\\"{\", \"x\": [1]}\n]\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0].source, EndsWith(":2"));
  EXPECT_THAT(all[1].source, EndsWith(":4"));
}

TEST(DatasetTest, ColumnsAreNamedByTheRecipe) {
  DataColumns columns;
  columns.question = "prompt";
  const auto all = records("a.jsonl", "{\"prompt\": \"Q\", \"answer\": \"A\"}\n", columns);
  EXPECT_EQ(all[0].question, "Q");
  columns.answer = "target";
  EXPECT_THAT(message("a.jsonl", "{\"prompt\": \"Q\", \"answer\": \"A\"}\n", columns),
              ::testing::AllOf(HasSubstr("'target'"), HasSubstr("answer, prompt")));
}

TEST(DatasetTest, MessagesGiveTheLastQuestionAndAnswer) {
  const auto turn = [](const char* role, const char* content) {
    return nlohmann::json{{"role", role}, {"content", content}};
  };
  const nlohmann::json row = {
      {"messages",
       {turn("user", "Q1"), turn("assistant", "A1"), turn("user", "Q2"), turn("assistant", "A2")}}};
  const auto all = records("a.jsonl", row.dump());
  EXPECT_EQ(all[0].question, "Q2");
  EXPECT_EQ(all[0].answer, "A2");
  EXPECT_EQ(all[0].messages.size(), 4u);
}

TEST(DatasetTest, PlainTextGivesARecordABlock) {
  const auto all = records("a.txt", "one\ntwo\n\n\nthree\r\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].text, "one\ntwo");
  EXPECT_EQ(all[1].text, "three");
  EXPECT_THAT(all[1].source, EndsWith(":5"));
}

TEST(DatasetTest, CsvColumnsAreNamedByItsFirstLine) {
  const auto all = records("a.csv", "question,answer\r\n\"One, \"\"two\"\"\nthree\",A\r\nQ2,\r\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].question, "One, \"two\"\nthree");
  EXPECT_EQ(all[0].answer, "A");
  EXPECT_THAT(all[1].source, EndsWith("a.csv:4"));
  EXPECT_THAT(message("a.csv", "question,answer\nQ,A\nQ\n"),
              HasSubstr("a.csv:3: has 1 columns where the first line names 2"));
  EXPECT_THAT(message("a.csv", "question,answer\n\"Q,A\n"), HasSubstr("a.csv:2: a quoted field"));
}

TEST(DatasetTest, ListsOfRecordsInOneJsonObjectFollowEachOther) {
  const auto all =
      records("a.json", R"({"one": [{"question": "Q1"}], "two": [{"question": "Q2"}, {"question": "Q3"}]})");
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[2].question, "Q3");
  EXPECT_THAT(all[2].source, EndsWith("a.json: two[1]"));
  EXPECT_THAT(message("a.json", R"({"one": [{"question": "Q1"}, {"q": 1}]})"),
              HasSubstr("a.json: one[1]: none of the columns"));
}

TEST(DatasetTest, ShareGptConversationsAreMessages) {
  const auto all = records(
      "a.jsonl", R"({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]})");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].question, "Q");
  EXPECT_EQ(all[0].answer, "A");
  EXPECT_EQ(all[0].messages[0].role, "user");
  EXPECT_THAT(message("a.jsonl", R"({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt"}]})"),
              HasSubstr("a.jsonl:1: message 2 of column 'conversations'"));
}

TEST(DatasetTest, AParquetFileIsRefusedWithTheWayToConvertIt) {
  EXPECT_THAT(message("a.parquet", "PAR1xxxxPAR1"), HasSubstr("pyarrow"));
}

TEST(DatasetTest, WhatIsWrongIsNamedWithFileAndLine) {
  EXPECT_THAT(message("a.jsonl", "{\"question\": \"Q\"}\n{\"question\": \n"),
              HasSubstr("a.jsonl:2: not valid JSON"));
  EXPECT_THAT(message("a.json", "[{\"question\": \"Q\"},\n{\"question\" 1}]"),
              HasSubstr("a.json:2: not valid JSON"));
  EXPECT_THAT(message("a.jsonl", "{\"q\": \"Q\"}\n"), HasSubstr("a.jsonl:1: none of the columns"));
  EXPECT_THAT(message("a.jsonl", "{\"q\": \"Q\"}\n"), HasSubstr("found: q"));
  EXPECT_THAT(message("a.jsonl", "{\"question\": {}}\n"),
              HasSubstr("a.jsonl:1: column 'question' is not text"));
  EXPECT_THAT(message("a.jsonl", "{\"question\": \"Q\", \"paraphrases\": [1]}\n"),
              HasSubstr("'paraphrases'"));
  EXPECT_THAT(message("a.jsonl", "{\"messages\": [{\"role\": \"user\"}]}\n"), HasSubstr("\"content\""));
  EXPECT_THAT(message("a.jsonl", "\n"), HasSubstr("holds no records"));
  EXPECT_THAT(message("a.json", "[1]"), HasSubstr("item 1 of the list"));
  EXPECT_THROW(read_records("/no/such/file.jsonl"), Error);
}

}  // namespace
}  // namespace efface
