#include "distributed/memory.hpp"

#ifdef __GLIBC__
#include <malloc.h>

#include <limits>
#endif

namespace efface {

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kLargestThreshold = 32 << 20;  // glibc refuses more; larger blocks are mapped one by one
  mallopt(M_MMAP_THRESHOLD, kLargestThreshold);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace efface
