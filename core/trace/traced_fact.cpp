#include "core/trace/traced_fact.hpp"

#include <cctype>

#include "core/text/token_span.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

[[noreturn]] void refuse(const TraceFact& fact) {
  throw Error(ErrorClass::data,
              "the subject '" + fact.subject + "' is not inside its prompt '" + fact.prompt + "'",
              "write the subject as it stands in the prompt");
}

bool ends_in_space(const std::string& text) {
  return text.empty() || std::isspace(static_cast<unsigned char>(text.back()));
}

}  // namespace

TracedFact tokenize_fact(const Tokenizer& tokenizer, const TraceFact& fact, const std::string& answer,
                         int64_t index) {
  if (fact.subject.empty() || fact.prompt.find(fact.subject) == std::string::npos) refuse(fact);
  TracedFact traced;
  traced.index = index;
  traced.name = fact.prompt + "\n" + fact.subject;
  traced.ids = tokenizer.encode(fact.prompt);

  const auto span = find_token_span(tokenizer, traced.ids, fact.subject);
  if (!span) refuse(fact);
  traced.subject_begin = span->begin;
  traced.subject_end = span->end;

  if (!answer.empty()) {
    const bool space =
        !ends_in_space(fact.prompt) && !std::isspace(static_cast<unsigned char>(answer.front()));
    const std::vector<int64_t> ids = tokenizer.encode(space ? " " + answer : answer);
    if (!ids.empty()) traced.answer_id = ids.front();
  }
  return traced;
}

}  // namespace efface
