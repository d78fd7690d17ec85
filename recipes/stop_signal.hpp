// A run that is asked to stop (SIGTERM, SIGINT, or SIGUSR1, which mpirun passes on and Slurm sends as a
// warning) finishes its step, saves, and ends with exit code 75.
#pragma once

#include "distributed/communicator.hpp"

namespace efface {

/// From here on the signals only leave a note. A second SIGTERM or SIGINT ends the process at once.
void catch_stop_signals();
/// Was this rank asked?
bool stop_was_noted();
/// Was any rank asked? Collective.
bool stop_was_asked(const Communicator& world);

}  // namespace efface
