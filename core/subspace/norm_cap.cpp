#include "core/subspace/norm_cap.hpp"

#include <algorithm>

namespace efface {
namespace {

template <typename T>
std::vector<T> to_vector(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kCPU).contiguous();
  return {flat.data_ptr<T>(), flat.data_ptr<T>() + flat.numel()};
}

}  // namespace

void TokenOrder::add_pass(const std::vector<int64_t>& counted, const Communicator& data) {
  const auto rows = static_cast<int64_t>(counted.size());
  const std::vector<int64_t> rows_of = to_vector<int64_t>(data.all_gather(at::full({1}, rows, at::kLong)));
  const std::vector<int64_t> all = to_vector<int64_t>(data.all_gather_rows(at::tensor(counted, at::kLong)));
  auto next = all.begin();
  passes_.emplace_back();
  for (int64_t count : rows_of) {
    passes_.back().emplace_back(next, next + count);
    next += count;
  }
  for (int64_t tokens : all) tokens_ += tokens;
}

std::vector<double> TokenOrder::first(const at::Tensor& local, int64_t limit,
                                      const Communicator& data) const {
  const std::vector<double> all = to_vector<double>(data.all_gather_rows(local.to(at::kDouble)));
  std::vector<size_t> next(static_cast<size_t>(data.size()), 0);  // where each rank's tokens go on in `all`
  for (size_t rank = 1; rank < next.size(); ++rank) {
    next[rank] = next[rank - 1];
    for (const auto& pass : passes_)
      for (int64_t tokens : pass[rank - 1]) next[rank] += static_cast<size_t>(tokens);
  }
  std::vector<double> ordered;
  for (const auto& pass : passes_) {
    size_t most_rows = 0;
    for (const auto& rows : pass) most_rows = std::max(most_rows, rows.size());
    for (size_t row = 0; row < most_rows; ++row)
      for (size_t rank = 0; rank < pass.size(); ++rank) {
        if (row >= pass[rank].size()) continue;
        for (int64_t token = 0; token < pass[rank][row]; ++token) ordered.push_back(all[next[rank]++]);
      }
  }
  ordered.resize(std::min(ordered.size(), static_cast<size_t>(limit)));
  return ordered;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace efface
