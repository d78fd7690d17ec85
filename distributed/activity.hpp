// What this process, one rank, is doing: written by its working thread, read by its watchdog and by the last
// words of a failure. One record a process, because whoever reads it was handed no communicator.
#pragma once

#include <cstdint>
#include <string>

namespace efface {

struct Activity {
  std::string stage, unit;           ///< empty outside of a run's stages
  int64_t done = 0;                  ///< units of the stage
  const char* collective = nullptr;  ///< the last one begun; null: none yet
  bool in_collective = false;
  uint64_t signs = 0;  ///< grows with everything noted here

  /// "unlearn: 12 steps done, in all_reduce"; empty where nothing is known.
  std::string text() const;
};

Activity current_activity();

/// A stage, or a part of it that counts something else, begins.
void note_stage(const std::string& stage, const std::string& unit);
void note_done(int64_t units);

/// How long a rank may wait for the others without a sign of progress; 0: for ever.
void allow_silence(double seconds);
double allowed_silence();

/// A collective from its beginning to its end. Two atomic stores each.
class InCollective {
 public:
  /// @param name of static life
  explicit InCollective(const char* name);
  ~InCollective();
  InCollective(const InCollective&) = delete;
  InCollective& operator=(const InCollective&) = delete;

 private:
  const char* outer_;
};

}  // namespace efface
