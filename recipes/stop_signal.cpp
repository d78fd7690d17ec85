#include "recipes/stop_signal.hpp"

#include <csignal>

namespace efface {
namespace {

// A signal handler can reach nothing but an object of static life.
volatile std::sig_atomic_t asked = 0;

void take_note(int signal) {
  asked = 1;
  // A second wish to end is granted at once; a second warning is the same warning.
  if (signal != SIGUSR1) std::signal(signal, SIG_DFL);
}

}  // namespace

void catch_stop_signals() {
  std::signal(SIGTERM, take_note);
  std::signal(SIGINT, take_note);
  std::signal(SIGUSR1, take_note);
}

bool stop_was_noted() { return asked != 0; }

bool stop_was_asked(const Communicator& world) {
  return world.all_reduce(static_cast<int64_t>(stop_was_noted()), Reduction::max) != 0;
}

}  // namespace efface
