#include "distributed/threads.hpp"

#include <ATen/Parallel.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace efface {
namespace {

/// [cores of the machine] 1 where this process may run.
at::Tensor allowed_cores() {
  const auto cores = std::max<int64_t>(1, sysconf(_SC_NPROCESSORS_CONF));
  auto allowed = at::ones({cores}, at::kInt);
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return allowed;
  for (int64_t core = 0; core < std::min<int64_t>(cores, CPU_SETSIZE); ++core)
    allowed[core] = CPU_ISSET(static_cast<int>(core), &set) ? 1 : 0;
  return allowed;
}

int threads_asked_for() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  return text == nullptr ? 0 : std::atoi(text);
}

}  // namespace

ThreadChoice set_threads(const Communicator& world) {
  const NodePlace place = place_on_node(world);
  auto node = world.split(place.node, world.rank());
  const auto mine = allowed_cores();
  auto sharers = mine.clone();  // ranks of this node that may run on each core
  node.all_reduce(sharers);
  // A core that several ranks may use counts in part, so that bound and unbound ranks both add up to the
  // cores.
  const double share = (mine.to(at::kDouble) / sharers.clamp_min(1)).sum().item<double>();
  const int own = std::max(1, static_cast<int>(share + 1e-9));
  const int asked = threads_asked_for();
  ThreadChoice choice;
  choice.threads = asked > 0 ? asked : own;
  at::set_num_threads(choice.threads);

  const int allowed = mine.sum().item<int>();
  const int fair = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)) / place.size);
  const int wanted = asked > 0 ? asked : fair;
  if (allowed < wanted)
    choice.warning = "this process is bound to " + std::to_string(allowed) + " core(s) where it could use " +
                     std::to_string(wanted) + "; start it with mpirun --bind-to none";
  return choice;
}

}  // namespace efface
