// The ranks of one program as a job that ends as one: whatever ends a rank ends all of them within seconds,
// with one line that says where it was and what happened.
#pragma once

#include <memory>
#include <string>

#include "distributed/communicator.hpp"

namespace efface {

class Job {
 public:
  /// With more than one rank, a thread watches the other ranks of this node and this rank's own progress.
  /// When one of them is gone, or this rank waits longer than allowed_silence() without a sign of progress,
  /// the job ends with the code of ErrorClass::communication. The thread calls MPI only to abort. Collective.
  explicit Job(const Communicator& world);
  /// Waits for all ranks, watched, unless an exception is on its way. Collective then.
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /// Prints "efface: error: [rank 1 of 4 on host, unlearn: 12 steps done, in all_reduce] WHAT" and ends every
  /// rank with `code`. On a node only the first that fails speaks, rank 0 before others that fail with it.
  /// With one rank it prints "efface: error: WHAT" and returns the code.
  int fail(const std::string& what, int code) const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace efface
