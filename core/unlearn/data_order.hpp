// Which rows a step trains on, and which rank gets them: pure functions of the pool, the seed and the step.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/unlearn/method.hpp"

namespace efface {

/// The global batch of a step, role by role: each role goes through its records in a new seeded order every
/// epoch, and takes one seeded wording of each.
std::vector<TrainingRow> global_batch(const TrainingPool& pool,
                                      const std::map<RowRole, int64_t>& rows_per_step, uint64_t seed,
                                      int64_t step);

/// Rows dealt to `parts`, balanced by tokens (longest first, to the least loaded); each part keeps the order.
/// Parts may be empty.
std::vector<std::vector<size_t>> deal_by_tokens(const std::vector<int64_t>& tokens, int parts);

/// Consecutive rows with at most `max_tokens` together, at least one row each; 0: all rows in one. No rows
/// give no pass.
std::vector<std::vector<TrainingRow>> split_passes(const std::vector<TrainingRow>& rows, int64_t max_tokens);

}  // namespace efface
