#include "distributed/parallel_ranges.hpp"

#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>

#include <algorithm>

namespace efface {

// An iterator over one byte an index lends ATen's threads.
void parallel_ranges(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& visit) {
  if (count <= 0) return;
  at::Tensor bytes = at::empty({count}, at::kByte);
  const char* base = static_cast<const char*>(bytes.data_ptr());
  auto iterator = at::TensorIterator::nullary_op(bytes);
  const auto loop = [&](char** data, const int64_t* strides, int64_t size, int64_t repeats) {
    for (int64_t i = 0; i < repeats; ++i) {
      const int64_t begin = data[0] - base + i * strides[1];
      visit(begin, begin + size);
    }
  };
  iterator.for_each(loop, std::max<int64_t>(1, grain));
}

}  // namespace efface
