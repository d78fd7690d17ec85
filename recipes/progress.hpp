// What a user sees while a stage works: one line a stage, with its rate and the time left. Rank 0 alone
// prints; every rank's progress is noted for its watchdog (distributed/activity.hpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace efface {

/// Whether a person watches standard output, under mpirun too: lines are then rewritten in place, and
/// coloured.
bool output_is_terminal();

class ProgressLine {
 public:
  /// On a terminal the running line is rewritten in place; otherwise a plain line appears every ten seconds.
  explicit ProgressLine(bool is_root);

  void begin(const std::string& stage, const std::string& unit);
  /// A stage's next part: its count and rate start anew, seconds() does not.
  void part(const std::string& unit);
  /// `note` is shown at the end of the running line ("loss 1.23").
  void update(int64_t done, int64_t total, const std::string& note = "");
  /// Replaces the running line by the stage's own.
  void end(const std::string& line);
  void say(const std::string& line);
  /// The same, after the stage's name.
  void note(const std::string& line);
  double seconds() const;  ///< since begin()

 private:
  using Clock = std::chrono::steady_clock;
  bool is_root_, terminal_;
  std::string stage_, unit_;
  Clock::time_point begun_, part_begun_, shown_;
};

/// "1.5 s", "3 min 20 s"
std::string duration_text(double seconds);
/// "45,000"
std::string count_text(int64_t count);
/// Three significant digits.
std::string number_text(double value);

}  // namespace efface
