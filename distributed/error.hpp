// One exception for everything that can go wrong; the top level prints it on one line and exits with its
// code.
#pragma once

#include <stdexcept>
#include <string>

namespace efface {

/// The class of a failure; the value is the exit code of the program (docs/exit-codes.md).
enum class ErrorClass : int {
  usage = 2,
  recipe = 3,
  data = 4,
  model = 5,
  storage = 6,
  numeric = 7,
  communication = 8,
  interrupted = 75,  // EX_TEMPFAIL: run the same command again
};

class Error : public std::runtime_error {
 public:
  /// `what` names the file, key or tensor; `remedy` says what the user can do (may be empty).
  Error(ErrorClass kind, const std::string& what, const std::string& remedy = "")
      : std::runtime_error(remedy.empty() ? what : what + " — " + remedy), kind_(kind) {}
  ErrorClass kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorClass kind_;
};

}  // namespace efface
