// A fact as ids, with the place of its subject.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/text/tokenizer.hpp"
#include "core/trace/causal_trace.hpp"

namespace efface {

struct TracedFact {
  std::vector<int64_t> ids;
  int64_t subject_begin = 0, subject_end = 0;  ///< token indices, [begin, end): every token with a byte of it
  std::string name;                            ///< key of the fact's noise
  int64_t answer_id = -1;                      ///< first token of the answer; -1: not given
  int64_t index = 0;                           ///< in the list of facts

  int64_t length() const { return static_cast<int64_t>(ids.size()); }
  int64_t last_subject() const { return subject_end - 1; }
};

/// Throws Error(data) when the subject is not inside the prompt.
TracedFact tokenize_fact(const Tokenizer& tokenizer, const TraceFact& fact, const std::string& answer,
                         int64_t index);

}  // namespace efface
