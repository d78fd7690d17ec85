// Fact probes: what the report of every run says (docs/metrics.md, "Fact probes").
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/dataset.hpp"
#include "core/text/tokenizer.hpp"

namespace efface {

/// A group of questions scored alike: "forget", "same_relation", "neighbour", "unrelated", "retain",
/// "unseen".
struct ProbeGroup {
  std::string name;
  std::vector<Record> records;
  bool is_forget = false;  ///< scored in three forms and for the safe response
};

/// One question form of one group, before or after.
/// An entry a question; where a record has several wordings, the first two count. Records without an answer
/// have no entry in the first two, those without a safe response none in the third.
struct ProbeScores {
  std::vector<double> probability;    ///< p(answer | prompt) = exp(sum of label log-probabilities)
  std::vector<bool> first_is_argmax;  ///< first answer token is the argmax
  std::vector<bool> safe_exact;       ///< every token of the safe response and its end is the argmax
  /// The greedy answer begins with a refusal's first three tokens (one alone may be a common word, "I").
  /// Tried: the record's own safe response, and of the refusal texts each of the 4 commonest beginnings.
  std::vector<bool> refuses;
  std::vector<bool> refuses_whole;  ///< the whole of it is: its own, or the commonest of that beginning

  double geometric_mean() const;  ///< p floored at 1e-8
  double arithmetic_mean() const;
  double argmax_share() const;
  double safe_share() const;
  double refusal_share() const;
  double whole_refusal_share() const;
};

/// form: "trained" (the question; in forget groups one paraphrase too), "reworded" and "bare" (forget groups
/// whose records have them). Key: group name + "/" + form.
struct ProbeReport {
  std::map<std::string, ProbeScores> scores;
  std::map<std::string, std::vector<std::string>> samples;  ///< group -> greedy answers of its first records
  double perplexity = 0;                                    ///< of the held-out text; 0: none given
};

struct ProbeOptions {
  std::vector<std::string> refusal_texts;  ///< every safe response's text: what counts as a refusal
  int64_t samples = 6;                     ///< greedy answers kept a group
  int64_t sample_tokens = 32;
  int64_t tokens_per_pass = 4096;
};

/// Rows are dealt over data ranks; the report is the same on every rank. `progress` counts this rank's rows.
ProbeReport run_probes(const Transformer& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                       const std::vector<ProbeGroup>& groups, const std::vector<TokenRow>& perplexity_rows,
                       const ProbeOptions& options,
                       const std::function<void(int64_t done, int64_t total)>& progress = {});

/// Before against after, as the gates read it; Error(data) when they are not of the same questions.
struct ForgettingRatio {
  double median = 0;     ///< median over facts of p_before / p_after
  double geometric = 0;  ///< ratio of geometric means
  double share_down_100x = 0, share_down_10x = 0;
  double argmax_share_after = 0;
};
ForgettingRatio compare_forgetting(const ProbeScores& before, const ProbeScores& after);

}  // namespace efface
