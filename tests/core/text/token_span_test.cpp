#include "core/text/token_span.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/core/text/fixtures.hpp"

namespace efface {
namespace {

// Every kind of tokenizer: the tokens of a span hold the text, and one token fewer on either side does not.
TEST(TokenSpan, IsTheFewestTokensThatHoldTheText) {
  int spans = 0;
  const auto all = testing::tokenizer_cases();
  for (const auto& one : all["cases"]) {
    const Tokenizer tokenizer = testing::case_tokenizer(one["name"]);
    for (const auto& row : one["rows"]) {
      const auto ids = row["ids"].get<std::vector<int64_t>>();
      const std::string whole = tokenizer.decode(ids);
      const bool ascii = std::all_of(whole.begin(), whole.end(), [](char c) { return c > 0; });
      if (!ascii || whole.size() < 6) continue;
      const std::string text = whole.substr(whole.size() / 3, whole.size() / 3);
      SCOPED_TRACE(one["name"].get<std::string>() + ": '" + text + "' in '" + whole + "'");
      const auto span = find_token_span(tokenizer, ids, text);
      ASSERT_TRUE(span.has_value());
      ++spans;
      const auto before = [&](int64_t token) {
        return tokenizer.decode({ids.begin(), ids.begin() + token}).size();
      };
      const size_t begin = whole.find(text), end = begin + text.size();
      EXPECT_LE(before(span->begin), begin);
      EXPECT_GT(before(span->begin + 1), begin);
      EXPECT_GE(before(span->end), end);
      EXPECT_LT(before(span->end - 1), end);
    }
  }
  EXPECT_GE(spans, 20);
}

TEST(TokenSpan, OfNoTextIsNone) {
  const Tokenizer tokenizer = testing::case_tokenizer(testing::tokenizer_cases()["cases"][0]["name"]);
  EXPECT_FALSE(find_token_span(tokenizer, tokenizer.encode("some text"), ""));
  EXPECT_FALSE(find_token_span(tokenizer, {}, "text"));
}

}  // namespace
}  // namespace efface
