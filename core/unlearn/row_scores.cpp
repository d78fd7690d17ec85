#include "core/unlearn/row_scores.hpp"

#include <algorithm>

#include "core/unlearn/losses.hpp"

namespace efface {
namespace {

std::vector<const TrainingRow*> sorted_by_role(const std::vector<TrainingRow>& rows) {
  std::vector<const TrainingRow*> sorted;
  for (const TrainingRow& row : rows) sorted.push_back(&row);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const TrainingRow* a, const TrainingRow* b) { return a->role < b->role; });
  return sorted;
}

}  // namespace

RowScores::RowScores(const Transformer& model, const StepBatch& batch) : model_(model) {
  const auto sorted = sorted_by_role(batch.rows);
  std::vector<TokenRow> tokens;
  for (const TrainingRow* row : sorted) tokens.push_back(row->tokens);
  batch_ = make_batch(tokens, model.mesh().device);

  for (size_t r = 0; r < sorted.size(); ++r) {
    const auto row = static_cast<int64_t>(r);
    auto [entry, is_new] = slices_.try_emplace(sorted[r]->role);
    Slice& slice = entry->second;
    if (is_new) {
      slice.row_begin = row;
      slice.label_begin = batch_.label_offsets[r];
    }
    slice.row_end = row + 1;
    slice.label_end = batch_.label_offsets[r + 1];
    slice.first_weights.push_back(sorted[r]->first_label_weight);
  }

  hidden_ = model.forward(batch_).index_select(0, batch_.label_positions);
  static_assert(RowRole::retain_kl > RowRole::retain, "rows without log-probabilities come last");
  const auto kl = slices_.find(RowRole::retain_kl);
  const int64_t scored = kl == slices_.end() ? batch_.labels() : kl->second.label_begin;
  if (scored > 0)
    log_probabilities_ =
        model.token_log_probabilities(hidden_.narrow(0, 0, scored), batch_.label_ids.narrow(0, 0, scored));
}

at::Tensor RowScores::label_rows(const Slice& slice) const {
  return batch_.label_rows.narrow(0, slice.label_begin, slice.label_end - slice.label_begin) -
         slice.row_begin;
}

at::Tensor RowScores::label_log_probabilities(RowRole role) const {
  const auto found = slices_.find(role);
  if (found == slices_.end()) return {};
  const Slice& slice = found->second;
  return log_probabilities_.narrow(0, slice.label_begin, slice.label_end - slice.label_begin);
}

at::Tensor RowScores::sequence_log_probabilities(RowRole role) const {
  const auto found = slices_.find(role);
  if (found == slices_.end()) return {};
  const Slice& slice = found->second;
  return row_sums(label_log_probabilities(role), label_rows(slice), slice.row_end - slice.row_begin);
}

at::Tensor RowScores::row_means(RowRole role, const at::Tensor& label_values) const {
  const auto found = slices_.find(role);
  if (found == slices_.end()) return {};
  const Slice& slice = found->second;
  const auto rows = label_rows(slice);
  const auto shares = mean_shares(rows, slice.first_weights, label_values.options().requires_grad(false));
  return row_sums(label_values * shares, rows, slice.row_end - slice.row_begin);
}

at::Tensor RowScores::mean_nll(RowRole role) const {
  const auto values = label_log_probabilities(role);
  return values.defined() ? -row_means(role, values) : values;
}

at::Tensor RowScores::mean_kl(RowRole role, const ReferenceCache& reference) const {
  const auto found = slices_.find(role);
  if (found == slices_.end()) return {};
  const Slice& slice = found->second;
  std::vector<at::Tensor> frozen;
  for (int64_t row = slice.row_begin; row < slice.row_end; ++row)
    frozen.push_back(reference.label_hidden(batch_.row_ids[row]));
  const auto hidden = hidden_.narrow(0, slice.label_begin, slice.label_end - slice.label_begin);
  const auto frozen_hidden = at::cat(frozen).to(hidden.options().requires_grad(false));
  return row_means(role, model_.kl_to_reference(hidden, frozen_hidden));
}

at::Tensor RowScores::reference_log_probabilities(RowRole role, const ReferenceCache& reference) const {
  const auto found = slices_.find(role);
  if (found == slices_.end()) return {};
  std::vector<double> values;
  for (int64_t row = found->second.row_begin; row < found->second.row_end; ++row)
    values.push_back(reference.log_probability(batch_.row_ids[row]));
  return at::tensor(values, at::kDouble).to(log_probabilities_.options().requires_grad(false));
}

}  // namespace efface
