#include "recipes/progress.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "distributed/activity.hpp"

namespace efface {

bool output_is_terminal() {
  if (isatty(STDOUT_FILENO) != 1) return false;
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return true;
  // mpirun gives its ranks a pseudo-terminal wherever its own output goes: what that is decides.
  std::error_code error;
  const auto target =
      std::filesystem::read_symlink("/proc/" + std::to_string(getppid()) + "/fd/1", error).string();
  return target.rfind("/dev/pts/", 0) == 0 || target.rfind("/dev/tty", 0) == 0;
}

ProgressLine::ProgressLine(bool is_root)
    : is_root_(is_root), terminal_(output_is_terminal()), begun_(Clock::now()) {}

void ProgressLine::begin(const std::string& stage, const std::string& unit) {
  stage_ = stage;
  begun_ = Clock::now();
  part(unit);
}

void ProgressLine::part(const std::string& unit) {
  unit_ = unit;
  part_begun_ = shown_ = Clock::now();
  note_stage(stage_, unit);
}

void ProgressLine::update(int64_t done, int64_t total, const std::string& note) {
  note_done(done);
  const auto now = Clock::now();
  if (!is_root_ || now - shown_ < (terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(10)))
    return;
  shown_ = now;
  const double passed = std::chrono::duration<double>(now - part_begun_).count();
  const double rate = static_cast<double>(done) / std::max(1e-9, passed);
  std::ostringstream line;
  line << std::left << std::setw(12) << stage_ << count_text(done) << " of " << count_text(total) << " "
       << unit_ << ", " << number_text(rate) << " a second";
  if (rate > 0 && done < total)
    line << ", " << duration_text(static_cast<double>(total - done) / rate) << " left";
  if (!note.empty()) line << ", " << note;
  std::cout << (terminal_ ? "\r\033[K" : "") << line.str() << (terminal_ ? "" : "\n") << std::flush;
}

void ProgressLine::end(const std::string& line) {
  if (!is_root_) return;
  std::cout << (terminal_ ? "\r\033[K" : "") << std::left << std::setw(12) << stage_ << line << std::endl;
}

void ProgressLine::say(const std::string& line) {
  if (is_root_) std::cout << (terminal_ ? "\r\033[K" : "") << line << std::endl;
}

void ProgressLine::note(const std::string& line) {
  std::ostringstream padded;
  padded << std::left << std::setw(12) << stage_ << line;
  say(padded.str());
}

double ProgressLine::seconds() const { return std::chrono::duration<double>(Clock::now() - begun_).count(); }

std::string duration_text(double seconds) {
  std::ostringstream out;
  if (seconds < 10) {
    out << std::fixed << std::setprecision(1) << seconds << " s";
  } else if (seconds < 120) {
    out << std::llround(seconds) << " s";
  } else {
    const int64_t whole = std::llround(seconds);
    if (whole < 7200)
      out << whole / 60 << " min " << whole % 60 << " s";
    else
      out << whole / 3600 << " h " << whole % 3600 / 60 << " min";
  }
  return out.str();
}

std::string count_text(int64_t count) {
  const std::string digits = std::to_string(count);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-') out += ',';
    out += digits[i];
  }
  return out;
}

std::string number_text(double value) {
  std::ostringstream out;
  if (std::fabs(value) >= 1000 && std::fabs(value) < 1e7)
    out << count_text(std::llround(value));
  else
    out << std::setprecision(3) << value;
  return out.str();
}

}  // namespace efface
