// From records to training rows, by the recipe.
//
//   safe       a wording of the forget question -> the safe response, to the end of the turn
//              (with the forget row of the same wording, for methods that read pairs)
//   forget     the forget question, the assistant's sentence begun (answer_prefix) -> the answer; or the bare
//              prompt -> the answer; records of plain text: windows of it. A record that gives no row is an
//              error: it would not be forgotten
//   retain     question, sentence begun -> answer; plain text: windows
//   retain_kl  question -> what the frozen model itself answers, from the assistant's first token
//   text       windows of data.text.retain; they join retain_kl (train.text_loss: kl) or retain (nll)
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"
#include "core/unlearn/method.hpp"
#include "recipes/recipe.hpp"
#include "recipes/run_data.hpp"

namespace efface {

struct RowMaker {
  const Recipe& recipe;
  const Tokenizer& tokenizer;
  const ChatTemplate& chat;

  /// The conversation up to where the assistant begins to speak; no labels.
  TokenRow prompt(const Record& record) const;
  /// Question, sentence begun, answer. A record with messages: its last answer.
  TokenRow answer(const Record& record, const std::string& question) const;
  TokenRow answer(const Record& record) const { return answer(record, record.question); }
  TokenRow bare(const Record& record) const;
  TokenRow safe(const Record& record, const std::string& question) const;
  /// `ids` said by the frozen model; finished: it ended its turn.
  TokenRow own_answer(const Record& record, const std::vector<int64_t>& ids, bool finished) const;
  std::vector<TokenRow> windows(const std::vector<std::string>& documents, int64_t window) const;
};

/// Does the record hold a question (or messages) rather than plain text?
bool is_question(const Record& record);
/// Training records of data.retain, data.neighbours and data.same_relation, each as often as it repeats.
std::vector<const Record*> retain_records(const Recipe& recipe, const RunData& data);

/// What the frozen model answered, by the prompt's row id.
struct OwnAnswer {
  std::vector<int64_t> ids;
  bool finished = false;
};
using OwnAnswers = std::map<uint64_t, OwnAnswer>;

/// The recipe's method before its window is known, which a trace may have to find: what it reads, and what it
/// trains, does not depend on that.
std::unique_ptr<Method> method_without_window(const Recipe& recipe);
/// Global rows a step of each role the method reads. Throws Error(recipe) when the recipe gives none of a
/// role.
std::map<RowRole, int64_t> rows_per_step(const Recipe& recipe, const Method& method);
/// Does a step draw rows that need the frozen model's own answers?
bool needs_own_answers(const Recipe& recipe);
/// Throws Error(data) naming the record that lacks what its role needs.
TrainingPool make_pool(const RowMaker& maker, const RunData& data, const Method& method,
                       const OwnAnswers& answers);

}  // namespace efface
