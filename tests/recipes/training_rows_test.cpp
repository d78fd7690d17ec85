// Training rows as the recipe asks for them.
#include "recipes/training_rows.hpp"

#include <gtest/gtest.h>

#include "distributed/error.hpp"
#include "tests/recipes/tiny_run.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface {
namespace {

class TrainingRows : public ::testing::Test {
 protected:
  TrainingRows() : tokenizer_(tiny_tokenizer()) {
    Record fact;
    fact.question = "Who rules?";
    fact.paraphrases = {"Name the ruler."};
    fact.answer = "Ada";
    fact.safe_response = "I cannot say.";
    data_.forget = {fact};
    Record kept;
    kept.question = "Who sings?";
    kept.answer = "Bo";
    data_.retain = {kept};
    recipe_.train.safe_wordings = {"question", "paraphrases"};
  }

  static Tokenizer tiny_tokenizer() {
    const testing::TemporaryFolder folder;
    testing::write_tiny_tokenizer(folder.path());
    return Tokenizer::load(folder.path());
  }
  std::vector<TrainingRow> safe_rows(const std::string& method) const {
    return make_pool({recipe_, tokenizer_, chat_}, data_, *make_method(method), {})
        .groups.at(RowRole::safe)
        .at(0);
  }
  std::vector<TrainingRow> forget_rows() const {
    return make_pool({recipe_, tokenizer_, chat_}, data_, *make_method("GradAscent"), {})
        .groups.at(RowRole::forget)
        .at(0);
  }
  std::string prompt(const TokenRow& row) const {
    return tokenizer_.decode({row.ids.begin(), row.ids.begin() + row.prompt_length});
  }
  std::string labels(const TokenRow& row) const {
    return tokenizer_.decode({row.ids.begin() + row.prompt_length, row.ids.end()});
  }

  Recipe recipe_;
  Tokenizer tokenizer_;
  ChatTemplate chat_ = ChatTemplate::named("chatml");
  RunData data_;
};

TEST_F(TrainingRows, APairIsTheSafeResponseAndTheAnswerToTheSameWording) {
  const auto rows = safe_rows("IdkDPO");
  ASSERT_EQ(rows.size(), 2u);
  for (const TrainingRow& row : rows) {
    ASSERT_TRUE(row.rejected.has_value());
    EXPECT_EQ(prompt(row.tokens), prompt(*row.rejected));
    EXPECT_EQ(labels(row.tokens), "I cannot say.<|im_end|>");
    EXPECT_EQ(labels(*row.rejected), "Ada<|im_end|>");
  }
  EXPECT_NE(prompt(rows[0].tokens), prompt(rows[1].tokens)) << "question and paraphrase";
}

TEST_F(TrainingRows, OnlyMethodsThatReadPairsGetThem) {
  for (const TrainingRow& row : safe_rows("NSRU")) EXPECT_FALSE(row.rejected.has_value());
}

TEST_F(TrainingRows, APairNeedsAnAnswer) {
  data_.forget[0].answer.clear();
  EXPECT_THROW(safe_rows("IdkDPO"), Error);
}

TEST_F(TrainingRows, AForgetRowIsTurnedAwayFromItsSubjectOn) {
  data_.forget[0].subject = "ruler";
  recipe_.train.forget_tokens = "subject";
  recipe_.train.forget_wordings = {"paraphrases"};
  const auto row = forget_rows().at(0);
  EXPECT_EQ(
      tokenizer_.decode({row.tokens.ids.begin() + row.first_represented, row.tokens.ids.end()}).substr(0, 6),
      "ruler.");
  recipe_.train.forget_tokens = "row";
  EXPECT_EQ(forget_rows().at(0).first_represented, 1);
}

TEST_F(TrainingRows, ASubjectThatIsNotInItsRowIsNamed) {
  data_.forget[0].subject = "Queen";
  data_.forget[0].source = "facts.jsonl:7";
  recipe_.train.forget_tokens = "subject";
  try {
    forget_rows();
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::data);
    EXPECT_NE(std::string(error.what()).find("facts.jsonl:7: its subject 'Queen' does not stand in"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace efface
