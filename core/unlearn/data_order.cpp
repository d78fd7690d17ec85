#include "core/unlearn/data_order.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "distributed/philox.hpp"

namespace efface {
namespace {

using Groups = std::vector<std::vector<TrainingRow>>;

/// Draw number `draw` of a role, counted from the first step on.
const TrainingRow& row_of_draw(const Groups& groups, const std::vector<int64_t>& order,
                               const std::string& role, uint64_t seed, int64_t draw) {
  const auto& wordings = groups[order[draw % static_cast<int64_t>(groups.size())]];
  const auto u = philox_uniform({seed, "wording", role}, 1, 1, 0, draw, draw + 1).item<double>();
  const auto count = static_cast<double>(wordings.size());
  return wordings[std::min(wordings.size() - 1, static_cast<size_t>(u * count))];
}

}  // namespace

std::vector<TrainingRow> global_batch(const TrainingPool& pool,
                                      const std::map<RowRole, int64_t>& rows_per_step, uint64_t seed,
                                      int64_t step) {
  std::vector<TrainingRow> batch;
  for (const auto& [role, rows] : rows_per_step) {
    const Groups& groups = pool.groups.at(role);
    const auto records = static_cast<int64_t>(groups.size());
    const std::string name = role_name(role);
    int64_t epoch = -1;
    std::vector<int64_t> order;
    for (int64_t draw = step * rows; draw < (step + 1) * rows; ++draw) {
      if (draw / records != epoch) {
        epoch = draw / records;
        order = philox_permutation({seed, "batch_order", name + "." + std::to_string(epoch)}, records);
      }
      batch.push_back(row_of_draw(groups, order, name, seed, draw));
      batch.back().role = role;
    }
  }
  return batch;
}

std::vector<std::vector<size_t>> deal_by_tokens(const std::vector<int64_t>& tokens, int parts) {
  std::vector<size_t> longest_first(tokens.size());
  std::iota(longest_first.begin(), longest_first.end(), size_t{0});
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](size_t a, size_t b) { return tokens[a] > tokens[b]; });
  std::vector<std::vector<size_t>> dealt(parts);
  std::vector<int64_t> load(parts, 0);
  for (size_t row : longest_first) {
    const auto part = std::min_element(load.begin(), load.end()) - load.begin();
    dealt[part].push_back(row);
    load[part] += tokens[row];
  }
  for (auto& rows : dealt) std::sort(rows.begin(), rows.end());
  return dealt;
}

std::vector<std::vector<TrainingRow>> split_passes(const std::vector<TrainingRow>& rows, int64_t max_tokens) {
  std::vector<std::vector<TrainingRow>> passes;
  int64_t tokens = 0;
  for (const TrainingRow& row : rows) {
    const int64_t length = row.tokens_in_pass();
    if (passes.empty() || (max_tokens > 0 && tokens + length > max_tokens)) {
      passes.emplace_back();
      tokens = 0;
    }
    passes.back().push_back(row);
    tokens += length;
  }
  return passes;
}

}  // namespace efface
