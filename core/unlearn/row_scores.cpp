#include "core/unlearn/row_scores.hpp"

#include <algorithm>

#include "core/unlearn/losses.hpp"

namespace efface {
namespace {

/// One row of the pass.
struct Entry {
  std::pair<RowRole, Answer> key;
  const TokenRow* tokens;
  double first_weight;
};

std::vector<Entry> sorted_entries(const std::vector<TrainingRow>& rows) {
  std::vector<Entry> entries;
  for (const TrainingRow& row : rows) {
    entries.push_back({{row.role, Answer::chosen}, &row.tokens, row.first_label_weight});
    if (row.rejected) entries.push_back({{row.role, Answer::rejected}, &*row.rejected, 1});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.key < b.key; });
  return entries;
}

}  // namespace

RowScores::RowScores(const Transformer& model, const StepBatch& batch) : model_(model) {
  const auto entries = sorted_entries(batch.rows);
  std::vector<TokenRow> tokens;
  for (const Entry& entry : entries) tokens.push_back(*entry.tokens);
  batch_ = make_batch(tokens, model.mesh().device);

  for (size_t r = 0; r < entries.size(); ++r) {
    const auto row = static_cast<int64_t>(r);
    auto [place, is_new] = slices_.try_emplace(entries[r].key);
    Slice& slice = place->second;
    if (is_new) {
      slice.row_begin = row;
      slice.label_begin = batch_.label_offsets[r];
    }
    slice.row_end = row + 1;
    slice.label_end = batch_.label_offsets[r + 1];
    slice.first_weights.push_back(entries[r].first_weight);
  }

  hidden_ = model.forward(batch_).index_select(0, batch_.label_positions);
  static_assert(RowRole::retain_kl > RowRole::retain, "rows without log-probabilities come last");
  const Slice* kl = find(RowRole::retain_kl);
  const int64_t scored = kl ? kl->label_begin : batch_.labels();
  if (scored > 0)
    log_probabilities_ =
        model.token_log_probabilities(hidden_.narrow(0, 0, scored), batch_.label_ids.narrow(0, 0, scored));
}

const RowScores::Slice* RowScores::find(RowRole role, Answer answer) const {
  const auto found = slices_.find({role, answer});
  return found == slices_.end() ? nullptr : &found->second;
}

at::Tensor RowScores::label_rows(const Slice& slice) const {
  return batch_.label_rows.narrow(0, slice.label_begin, slice.label_end - slice.label_begin) -
         slice.row_begin;
}

at::Tensor RowScores::log_probabilities(const Slice& slice) const {
  return log_probabilities_.narrow(0, slice.label_begin, slice.label_end - slice.label_begin);
}

at::Tensor RowScores::sequence_log_probabilities(const Slice& slice) const {
  return row_sums(log_probabilities(slice), label_rows(slice), slice.row_end - slice.row_begin);
}

at::Tensor RowScores::reference_log_probabilities(const Slice& slice, const ReferenceCache& cache) const {
  std::vector<double> values;
  for (int64_t row = slice.row_begin; row < slice.row_end; ++row)
    values.push_back(cache.log_probability(batch_.row_ids[row]));
  return at::tensor(values, at::kDouble).to(log_probabilities_.options().requires_grad(false));
}

at::Tensor RowScores::label_log_probabilities(RowRole role) const {
  const Slice* slice = find(role);
  return slice ? log_probabilities(*slice) : at::Tensor();
}

at::Tensor RowScores::sequence_log_probabilities(RowRole role) const {
  const Slice* slice = find(role);
  return slice ? sequence_log_probabilities(*slice) : at::Tensor();
}

at::Tensor RowScores::row_means(RowRole role, const at::Tensor& label_values) const {
  const Slice* slice = find(role);
  if (!slice) return {};
  const auto rows = label_rows(*slice);
  const auto shares = mean_shares(rows, slice->first_weights, label_values.options().requires_grad(false));
  return row_sums(label_values * shares, rows, slice->row_end - slice->row_begin);
}

at::Tensor RowScores::mean_nll(RowRole role) const {
  const auto values = label_log_probabilities(role);
  return values.defined() ? -row_means(role, values) : values;
}

at::Tensor RowScores::mean_kl(RowRole role, const ReferenceCache& reference) const {
  const Slice* slice = find(role);
  if (!slice) return {};
  std::vector<at::Tensor> frozen;
  for (int64_t row = slice->row_begin; row < slice->row_end; ++row)
    frozen.push_back(reference.label_hidden(batch_.row_ids[row]));
  const auto hidden = hidden_.narrow(0, slice->label_begin, slice->label_end - slice->label_begin);
  const auto frozen_hidden = at::cat(frozen).to(hidden.options().requires_grad(false));
  return row_means(role, model_.kl_to_reference(hidden, frozen_hidden));
}

at::Tensor RowScores::reference_log_probabilities(RowRole role, const ReferenceCache& reference) const {
  const Slice* slice = find(role);
  return slice ? reference_log_probabilities(*slice, reference) : at::Tensor();
}

at::Tensor RowScores::log_ratios(RowRole role, const ReferenceCache& reference, Answer answer) const {
  const Slice* slice = find(role, answer);
  if (!slice) return {};
  return sequence_log_probabilities(*slice) - reference_log_probabilities(*slice, reference);
}

}  // namespace efface
