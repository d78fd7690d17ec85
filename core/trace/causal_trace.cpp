#include "core/trace/causal_trace.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "core/trace/trace_runs.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int64_t kTokensPerRun = 8192;
constexpr int64_t kHiddenStateBytes = int64_t{256}
                                      << 20;  // corrupted hidden states of all layers kept at once

// Consecutive facts whose tokens, times `copies`, stay within `limit`; at least one.
std::vector<std::vector<TracedFact>> in_groups(const std::vector<TracedFact>& facts, int64_t copies,
                                               int64_t limit) {
  std::vector<std::vector<TracedFact>> groups;
  int64_t tokens = 0;
  for (const TracedFact& fact : facts) {
    const int64_t more = fact.length() * copies;
    if (groups.empty() || tokens + more > limit) {
      groups.emplace_back();
      tokens = 0;
    }
    groups.back().push_back(fact);
    tokens += more;
  }
  return groups;
}

int64_t tokens_per_patched_run(const Transformer& model) {
  const auto bytes_per_token = (model.config().layers + 1) * model.config().hidden_size *
                               static_cast<int64_t>(c10::elementSize(model.dtype()));
  return std::clamp(kHiddenStateBytes / bytes_per_token, int64_t{1}, kTokensPerRun);
}

// Columns of a row of `table` for each fact.
enum Column : int64_t { kUsed, kClean, kCorrupted, kFirstLayer };

// [facts, 3 + layers] fp64, zero but for this data rank's known facts.
at::Tensor trace_mine(const Transformer& model, const std::vector<TracedFact>& mine, int64_t facts,
                      double noise, const TraceOptions& options,
                      const std::function<void(int64_t, int64_t)>& progress) {
  const int64_t layers = model.config().layers;
  const at::Tensor table = at::zeros({facts, kFirstLayer + layers}, at::kDouble);
  auto cell = table.accessor<double, 2>();

  std::vector<TracedFact> known;
  std::vector<int64_t> first_choice(static_cast<size_t>(facts));
  for (const auto& group : in_groups(mine, 1, kTokensPerRun)) {
    const CleanAnswers clean = answer_clean(model, group);
    for (size_t i = 0; i < group.size(); ++i) {
      const TracedFact& fact = group[i];
      if (fact.answer_id >= 0 && fact.answer_id != clean.ids[i]) continue;
      known.push_back(fact);
      first_choice[static_cast<size_t>(fact.index)] = clean.ids[i];
      cell[fact.index][kUsed] = 1;
      cell[fact.index][kClean] = clean.probabilities[i];
    }
  }

  int64_t done = 0;
  const int64_t total = static_cast<int64_t>(known.size()) * layers;
  for (const auto& group : in_groups(known, options.draws, tokens_per_patched_run(model))) {
    std::vector<int64_t> answers;
    for (const TracedFact& fact : group) answers.push_back(first_choice[static_cast<size_t>(fact.index)]);
    const CorruptedEffects effects = run_patched(model, group, answers, options, noise, [&] {
      done += static_cast<int64_t>(group.size());
      if (progress) progress(done, total);
    });
    for (size_t i = 0; i < group.size(); ++i) {
      cell[group[i].index][kCorrupted] = effects.corrupted[i];
      for (int64_t layer = 0; layer < layers; ++layer)
        cell[group[i].index][kFirstLayer + layer] =
            effects.patched[i][static_cast<size_t>(layer)] - effects.corrupted[i];
    }
  }
  return table;
}

}  // namespace

int default_restore_window(int layers) {
  const int width = static_cast<int>(std::lround(10.0 * layers / 48.0));
  return width + 1 - width % 2;
}

std::pair<int, int> restored_layers(int layer, int layers, int width) {
  const int begin = layer - width / 2;
  return {std::max(0, begin), std::min(layers, begin + width)};
}

std::pair<int, int> best_window(const std::vector<double>& effect, int width,
                                const std::vector<int>& exclude) {
  const int layers = static_cast<int>(effect.size());
  int best = -1;
  double best_sum = -std::numeric_limits<double>::infinity();
  for (int begin = 0; width > 0 && begin + width <= layers; ++begin) {
    if (std::any_of(exclude.begin(), exclude.end(),
                    [&](int layer) { return layer >= begin && layer < begin + width; }))
      continue;
    double sum = 0;
    for (int layer = begin; layer < begin + width; ++layer) sum += effect[static_cast<size_t>(layer)];
    if (sum > best_sum) {
      best = begin;
      best_sum = sum;
    }
  }
  if (best < 0)
    throw Error(ErrorClass::recipe,
                "no window of " + std::to_string(width) + " of the " + std::to_string(layers) +
                    " layers is without a layer of trace.exclude",
                "make the window or the list smaller");
  return {best, best + width};
}

TraceResult causal_trace(const Transformer& model, const Tokenizer& tokenizer,
                         const std::vector<TraceFact>& facts, const std::vector<std::string>& answers,
                         const TraceOptions& given,
                         const std::function<void(int64_t done, int64_t total)>& progress) {
  const auto count = static_cast<int64_t>(facts.size());
  const int64_t layers = model.config().layers;
  TraceOptions options = given;
  if (options.restore_window <= 0) options.restore_window = default_restore_window(static_cast<int>(layers));
  best_window(std::vector<double>(static_cast<size_t>(layers)), options.unlearning_window, options.exclude);

  std::vector<TracedFact> all, mine;
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    all.push_back(tokenize_fact(tokenizer, facts[at], answers.empty() ? "" : answers.at(at), i));
    if (i % model.mesh().data_size() == model.mesh().data_rank()) mine.push_back(all.back());
  }
  const double noise = all.empty() ? 0 : options.noise_scale * subject_embedding_deviation(model, all);
  const at::Tensor table = trace_mine(model, mine, count, noise, options, progress);
  model.mesh().data.all_reduce(table);

  const at::Tensor used = table.index_select(0, table.select(1, kUsed).nonzero().flatten());
  TraceResult result;
  result.facts_used = used.size(0);
  result.facts_unknown = count - result.facts_used;
  if (result.facts_used == 0)
    throw Error(ErrorClass::data,
                "the model knows none of the " + std::to_string(count) + " facts to be traced",
                "give facts the model completes rightly");
  result.clean_probability = used.select(1, kClean).mean().item<double>();
  result.corrupted_probability = used.select(1, kCorrupted).mean().item<double>();
  const double facts_used = static_cast<double>(result.facts_used);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const at::Tensor effect = used.select(1, kFirstLayer + layer);
    const double mean = effect.mean().item<double>();
    const double spread = (effect - mean).square().sum().item<double>();
    result.effect.push_back(mean);
    result.effect_standard_error.push_back(
        result.facts_used > 1 ? std::sqrt(spread / (facts_used - 1) / facts_used) : 0);
  }
  result.restore_window = options.restore_window;
  std::tie(result.window_begin, result.window_end) =
      best_window(result.effect, options.unlearning_window, options.exclude);
  std::tie(result.unrestricted_begin, result.unrestricted_end) =
      best_window(result.effect, options.unlearning_window, {});
  return result;
}

}  // namespace efface
