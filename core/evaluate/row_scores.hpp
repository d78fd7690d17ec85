// Rows through the model once, dealt over data ranks: what every measure of this room is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/ragged_batch.hpp"

namespace efface {

/// What the model says about one row, a number a label.
struct RowScore {
  std::vector<double> log_probabilities;
  std::vector<bool> is_argmax;  ///< teacher-forced: the label is what the model would say here

  double log_probability() const;  ///< sum
  bool all_argmax() const;
  /// The first `count` labels (or all, where there are fewer) are the argmax.
  bool begins_with_argmax(size_t count) const;
};

using Progress = std::function<void(int64_t done, int64_t total)>;  ///< rows of this rank

/// Calls `body` with rows of this data rank, at most `tokens_per_pass` tokens at once, and their normalised
/// hidden states [tokens, hidden]. Rows are dealt by length, the same way on every rank. Without gradients.
/// `indices[i]` is where the batch's row i stands in `rows`.
void for_each_pass(const Transformer& model, const std::vector<TokenRow>& rows, int64_t tokens_per_pass,
                   const std::function<void(const std::vector<size_t>& indices, const RaggedBatch& batch,
                                            const at::Tensor& hidden)>& body,
                   const Progress& progress = {});

/// A score for each row, the same on every rank. Equal rows are computed once.
std::vector<RowScore> score_rows(const Transformer& model, const std::vector<TokenRow>& rows,
                                 int64_t tokens_per_pass, const Progress& progress = {});

/// Greedy answers, prompts dealt over data ranks, cut before `stop` (an id, or -1) and the model's own end of
/// text; the same on every rank.
std::vector<std::vector<int64_t>> generate_answers(const Transformer& model,
                                                   const std::vector<std::vector<int64_t>>& prompts,
                                                   int64_t max_new_tokens, int64_t stop,
                                                   int64_t prompts_per_pass, const Progress& progress = {});

/// exp of the mean negative log-probability over all labels of `rows`; 0 where there are none.
double perplexity(const Transformer& model, const std::vector<TokenRow>& rows, int64_t tokens_per_pass,
                  const Progress& progress = {});

}  // namespace efface
