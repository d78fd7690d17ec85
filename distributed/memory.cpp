#include "distributed/memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace efface {
namespace {

/// The number in a file, or behind `key` in it; -1 where there is none ("max", no such file).
int64_t number_in(const std::string& file, const std::string& key = "") {
  std::ifstream stream(file);
  std::string word;
  if (!key.empty())
    while (stream >> word && word != key) {
    }
  int64_t value = -1;
  return stream >> value ? value : -1;
}

/// The folder of this process's control group under the unified hierarchy.
std::string control_group() {
  std::ifstream stream("/proc/self/cgroup");
  for (std::string line; std::getline(stream, line);)
    if (line.starts_with("0::")) return "/sys/fs/cgroup" + line.substr(3);
  return "/sys/fs/cgroup";
}

int64_t left_on_node() {
  int64_t left = std::numeric_limits<int64_t>::max();
  if (const int64_t free = system_memory("MemAvailable"); free > 0) left = free;
  const std::string group = control_group();
  const int64_t limit = number_in(group + "/memory.max"), used = number_in(group + "/memory.current");
  // Files that are cached count as used, but make way.
  const int64_t cached = std::max<int64_t>(0, number_in(group + "/memory.stat", "inactive_file"));
  if (limit >= 0 && used >= 0) left = std::min(left, limit - used + cached);
  return std::max<int64_t>(0, left);
}

}  // namespace

int64_t system_memory(const std::string& field) {
  return std::max<int64_t>(0, number_in("/proc/meminfo", field + ":")) * 1024;
}

int64_t available_memory(const Communicator& world) {
  const int64_t mine = left_on_node() / place_on_node(world).size;
  return -world.all_reduce(-mine, Reduction::max);
}

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kLargestThreshold = 32 << 20;  // glibc refuses more; larger blocks are mapped one by one
  mallopt(M_MMAP_THRESHOLD, kLargestThreshold);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace efface
