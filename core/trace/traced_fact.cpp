#include "core/trace/traced_fact.hpp"

#include <cctype>

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

  // The text up to each token tells which bytes the token stands for.
  std::vector<size_t> ends;
  std::vector<int64_t> prefix;
  for (int64_t id : traced.ids) {
    prefix.push_back(id);
    ends.push_back(tokenizer.decode(prefix).size());
  }
  const size_t begin = tokenizer.decode(traced.ids).find(fact.subject);
  if (begin == std::string::npos) refuse(fact);
  const size_t end = begin + fact.subject.size();
  int64_t token = 0;
  const auto count = static_cast<int64_t>(ends.size());
  while (token < count && ends[static_cast<size_t>(token)] <= begin) ++token;
  traced.subject_begin = token;
  while (token < count && ends[static_cast<size_t>(token)] < end) ++token;
  traced.subject_end = std::min(token + 1, count);

  if (!answer.empty()) {
    const bool space =
        !ends_in_space(fact.prompt) && !std::isspace(static_cast<unsigned char>(answer.front()));
    const std::vector<int64_t> ids = tokenizer.encode(space ? " " + answer : answer);
    if (!ids.empty()) traced.answer_id = ids.front();
  }
  return traced;
}

}  // namespace efface
