// What the benchmarks' workers share: commands on standard input, one a line until an empty one; on every
// rank the same; answers on standard output, from the first rank.
#pragma once

#include <chrono>
#include <functional>
#include <iostream>
#include <string>

#include "distributed/communicator.hpp"
#include "distributed/memory.hpp"

namespace efface {

inline void serve_commands(const Communicator& world, const std::function<void(const std::string&)>& answer) {
  const bool root = world.rank() == 0;
  if (root) std::cout << "{\"ready\": true}" << std::endl;
  for (;;) {
    std::string command;
    if (root) std::getline(std::cin, command);
    command = world.broadcast(command, 0);
    if (command.empty()) return;
    answer(command);
  }
}

/// Seconds of the slowest rank; all begin together.
inline double timed(const Communicator& world, const std::function<void()>& work) {
  world.barrier();
  const auto started = std::chrono::steady_clock::now();
  work();
  const double mine = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return world.all_reduce(mine, Reduction::max);
}

/// main() of a worker: an error is one line, and ends all ranks.
inline int run_worker(int argc, char** argv, const char* name,
                      const std::function<void(const Communicator& world)>& serve) {
  keep_freed_memory();
  MpiSession session(&argc, &argv);
  try {
    serve(session.world());
    return 0;
  } catch (const std::exception& error) {
    std::cerr << name << ": error: " << error.what() << "\n";
    MpiSession::abort(1);
  }
}

}  // namespace efface
