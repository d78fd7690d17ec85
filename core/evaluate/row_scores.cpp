#include "core/evaluate/row_scores.hpp"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

namespace efface {
namespace {

/// Indices of this data rank's rows, longest first, so that the passes are full and the ranks end together.
std::vector<size_t> dealt_rows(const std::vector<TokenRow>& rows, const Mesh& mesh) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rows[a].ids.size() > rows[b].ids.size(); });
  std::vector<size_t> mine;
  for (auto at = static_cast<size_t>(mesh.data_rank()); at < order.size(); at += mesh.data_size())
    mine.push_back(order[at]);
  return mine;
}

/// Each distinct row once, and where each of `rows` stands among them.
std::vector<TokenRow> distinct_rows(const std::vector<TokenRow>& rows, std::vector<size_t>& place) {
  std::vector<TokenRow> distinct;
  std::unordered_map<uint64_t, size_t> known;
  for (const TokenRow& row : rows) {
    const auto [entry, is_new] = known.emplace(row.row_id(), distinct.size());
    if (is_new) distinct.push_back(row);
    place.push_back(entry->second);
  }
  return distinct;
}

}  // namespace

double RowScore::log_probability() const {
  return std::accumulate(log_probabilities.begin(), log_probabilities.end(), 0.0);
}

bool RowScore::all_argmax() const { return begins_with_argmax(is_argmax.size()); }

bool RowScore::begins_with_argmax(size_t count) const {
  const auto end = is_argmax.begin() + static_cast<int64_t>(std::min(count, is_argmax.size()));
  return !is_argmax.empty() && std::all_of(is_argmax.begin(), end, [](bool hit) { return hit; });
}

void for_each_pass(
    const Transformer& model, const std::vector<TokenRow>& rows, int64_t tokens_per_pass,
    const std::function<void(const std::vector<size_t>&, const RaggedBatch&, const at::Tensor&)>& body,
    const Progress& progress) {
  const at::NoGradGuard no_grad;
  const std::vector<size_t> mine = dealt_rows(rows, model.mesh());
  for (size_t at = 0; at < mine.size();) {
    std::vector<size_t> indices;
    std::vector<TokenRow> pass;
    int64_t tokens = 0;
    for (; at < mine.size(); ++at) {
      const TokenRow& row = rows[mine[at]];
      tokens += static_cast<int64_t>(row.ids.size());
      if (!pass.empty() && tokens > tokens_per_pass) break;
      indices.push_back(mine[at]);
      pass.push_back(row);
    }
    const RaggedBatch batch = make_batch(pass, model.mesh().device);
    body(indices, batch, model.forward(batch));
    if (progress) progress(static_cast<int64_t>(at), static_cast<int64_t>(mine.size()));
  }
}

std::vector<RowScore> score_rows(const Transformer& model, const std::vector<TokenRow>& rows,
                                 int64_t tokens_per_pass, const Progress& progress) {
  std::vector<size_t> place;
  const std::vector<TokenRow> distinct = distinct_rows(rows, place);
  std::vector<int64_t> offsets = {0};
  for (const TokenRow& row : distinct) offsets.push_back(offsets.back() + row.labels());

  // Every rank fills in its own rows; the sum over data ranks adds zeros to them, which is exact.
  at::Tensor table = at::zeros({2, offsets.back()}, at::kDouble);
  for_each_pass(
      model, distinct, tokens_per_pass,
      [&](const std::vector<size_t>& indices, const RaggedBatch& batch, const at::Tensor& hidden) {
        if (batch.labels() == 0) return;
        const at::Tensor labelled = hidden.index_select(0, batch.label_positions);
        const at::Tensor log_p = model.token_log_probabilities(labelled, batch.label_ids);
        const at::Tensor hit = model.argmax(labelled).eq(batch.label_ids);
        const at::Tensor result = at::stack({log_p.to(at::kDouble), hit.to(at::kDouble)}).cpu();
        for (size_t i = 0; i < indices.size(); ++i) {
          const int64_t from = batch.label_offsets[i], count = batch.label_offsets[i + 1] - from;
          table.narrow(1, offsets[indices[i]], count).copy_(result.narrow(1, from, count));
        }
      },
      progress);
  model.mesh().data.all_reduce(table);

  std::vector<RowScore> scores(rows.size());
  const double* log_p = table.data_ptr<double>();
  const double* hit = log_p + offsets.back();
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t i = offsets[place[r]]; i < offsets[place[r] + 1]; ++i) {
      scores[r].log_probabilities.push_back(log_p[i]);
      scores[r].is_argmax.push_back(hit[i] > 0.5);
    }
  }
  return scores;
}

std::vector<std::vector<int64_t>> generate_answers(const Transformer& model,
                                                   const std::vector<std::vector<int64_t>>& prompts,
                                                   int64_t max_new_tokens, int64_t stop,
                                                   int64_t prompts_per_pass, const Progress& progress) {
  const Mesh& mesh = model.mesh();
  const auto total = static_cast<int64_t>(prompts.size());
  at::Tensor table = at::zeros({total, max_new_tokens}, at::kLong);  // id + 1; 0: nothing said
  const auto [begin, end] = even_range(total, mesh.data_rank(), mesh.data_size());
  for (int64_t at = begin; at < end; at += prompts_per_pass) {
    const int64_t until = std::min(end, at + prompts_per_pass);
    const auto answers = model.generate({prompts.begin() + at, prompts.begin() + until}, max_new_tokens);
    for (int64_t i = 0; i < until - at; ++i)
      for (size_t k = 0; k < answers[i].size() && answers[i][k] != stop; ++k)
        table.index_put_({at + i, static_cast<int64_t>(k)}, answers[i][k] + 1);
    if (progress) progress(until - begin, end - begin);
  }
  mesh.data.all_reduce(table);
  std::vector<std::vector<int64_t>> answers(prompts.size());
  const int64_t* ids = table.data_ptr<int64_t>();
  for (int64_t i = 0; i < total; ++i)
    for (int64_t k = 0; k < max_new_tokens && ids[i * max_new_tokens + k] > 0; ++k)
      answers[i].push_back(ids[i * max_new_tokens + k] - 1);
  return answers;
}

double perplexity(const Transformer& model, const std::vector<TokenRow>& rows, int64_t tokens_per_pass,
                  const Progress& progress) {
  double sum = 0;
  int64_t labels = 0;
  for_each_pass(
      model, rows, tokens_per_pass,
      [&](const std::vector<size_t>&, const RaggedBatch& batch, const at::Tensor& hidden) {
        if (batch.labels() == 0) return;
        const at::Tensor labelled = hidden.index_select(0, batch.label_positions);
        sum += model.token_log_probabilities(labelled, batch.label_ids).sum(at::kDouble).item<double>();
        labels += batch.labels();
      },
      progress);
  sum = model.mesh().data.all_reduce(sum);
  labels = model.mesh().data.all_reduce(labels);
  return labels == 0 ? 0 : std::exp(-sum / static_cast<double>(labels));
}

}  // namespace efface
