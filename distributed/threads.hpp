// How many threads a rank may use, so that ranks x threads never exceeds the cores.
#pragma once

#include <string>

#include "distributed/communicator.hpp"

namespace efface {

struct ThreadChoice {
  int threads = 1;
  std::string warning;  ///< empty, or why this rank runs slower than the node allows and what to do about it
};

/// Sets the threads of ATen and BLAS: OMP_NUM_THREADS where it is set, else this rank's share of the cores
/// that the ranks of its node may run on. Collective. Warns when a launcher has bound the process to fewer
/// cores.
ThreadChoice set_threads(const Communicator& world);

}  // namespace efface
