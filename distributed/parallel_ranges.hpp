// A loop over this rank's threads.
#pragma once

#include <cstdint>
#include <functional>

namespace efface {

/// visit(begin, end) for ranges that together are [0, count), on ATen's own threads (set_threads()); a range
/// holds at least `grain` indices. at::parallel_for of ATen's headers is serial wherever it is compiled
/// without OpenMP, as it is here: a second OpenMP runtime would oversubscribe the cores.
void parallel_ranges(int64_t count, int64_t grain,
                     const std::function<void(int64_t begin, int64_t end)>& visit);

}  // namespace efface
