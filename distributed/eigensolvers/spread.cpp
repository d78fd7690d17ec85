#include <algorithm>
#include <numeric>

#include "distributed/eigensolver.hpp"

namespace efface {

std::vector<int> spread_by_cost(const std::vector<EigenTask>& tasks, int ranks) {
  std::vector<size_t> largest_first(tasks.size());
  std::iota(largest_first.begin(), largest_first.end(), size_t{0});
  std::stable_sort(largest_first.begin(), largest_first.end(),
                   [&](size_t a, size_t b) { return tasks[a].n > tasks[b].n; });
  std::vector<double> load(static_cast<size_t>(ranks), 0.);
  std::vector<int> owner(tasks.size(), 0);
  for (size_t task : largest_first) {
    const auto least = std::min_element(load.begin(), load.end());
    const auto n = static_cast<double>(tasks[task].n);
    *least += n * n * n;
    owner[task] = static_cast<int>(least - load.begin());
  }
  return owner;
}

}  // namespace efface
