// One forward pass for all rows of a step, whatever their roles; each role's labels are a slice of it.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <utility>
#include <vector>

#include "core/unlearn/method.hpp"

namespace efface {

/// Which answer of a row: the one it holds, or the one that it is preferred to (TrainingRow::rejected).
enum class Answer { chosen, rejected };

/// Rows of one role keep the order they have in the batch. Values are fp32 (fp64 for an fp64 model),
/// replicated on the tensor group, and differentiable. A role without rows gives an undefined tensor.
class RowScores {
 public:
  /// Runs the model on batch.rows. Log-probabilities are formed for every role but retain_kl.
  RowScores(const Transformer& model, const StepBatch& batch);

  at::Tensor label_log_probabilities(RowRole role) const;     ///< [labels]
  at::Tensor sequence_log_probabilities(RowRole role) const;  ///< [rows]: sum over labels
  at::Tensor mean_nll(RowRole role) const;                    ///< [rows]: the rows' weighted means
  /// [labels] -> [rows]: the rows' weighted means of any per-label value.
  at::Tensor row_means(RowRole role, const at::Tensor& label_values) const;
  /// [rows]: weighted mean over labels of KL(frozen model || model), from cached hidden states.
  at::Tensor mean_kl(RowRole role, const ReferenceCache& reference) const;
  /// [rows]: the frozen model's sums of label log-probabilities.
  at::Tensor reference_log_probabilities(RowRole role, const ReferenceCache& reference) const;
  /// [rows]: log pi - log pi_ref of the rows' answers, sums over labels; for `rejected` every row of the role
  /// must be a pair.
  at::Tensor log_ratios(RowRole role, const ReferenceCache& reference, Answer answer) const;

 private:
  struct Slice {
    int64_t row_begin = 0, row_end = 0, label_begin = 0, label_end = 0;
    std::vector<double> first_weights;
  };
  using SliceKey = std::pair<RowRole, Answer>;
  /// Null where there is no such row.
  const Slice* find(RowRole role, Answer answer = Answer::chosen) const;
  at::Tensor label_rows(const Slice& slice) const;
  at::Tensor log_probabilities(const Slice& slice) const;                                         // [labels]
  at::Tensor sequence_log_probabilities(const Slice& slice) const;                                // [rows]
  at::Tensor reference_log_probabilities(const Slice& slice, const ReferenceCache& cache) const;  // [rows]

  const Transformer& model_;
  RaggedBatch batch_;  // rows sorted by role and answer, so that a slice's labels lie together
  std::map<SliceKey, Slice> slices_;
  at::Tensor hidden_;             // [labels, hidden]: normalised, at the label positions
  at::Tensor log_probabilities_;  // [labels of all roles but retain_kl]
};

}  // namespace efface
