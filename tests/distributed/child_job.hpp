// A test that starts its own program again as another MPI job, to see how that job ends.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/support/temporary_folder.hpp"

namespace efface::testing {

constexpr char kIsChild[] = "EFFACE_TEST_CHILD";
inline bool is_child() { return std::getenv(kIsChild) != nullptr; }

struct JobOutcome {
  int code = -1;
  std::string output;

  int count(const std::string& text) const {
    int found = 0;
    for (size_t at = output.find(text); at != std::string::npos; at = output.find(text, at + 1)) ++found;
    return found;
  }
};

/// This very program's tests of `filter`, started by `launcher` outside the MPI job it belongs to.
inline JobOutcome run_child(const std::string& launcher, const std::string& filter) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : std::string(name) + "='" + value + "' ";
  };
  const TemporaryFolder folder;
  const auto program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "env -i " + variable("PATH") + variable("HOME") + variable("LD_LIBRARY_PATH") +
                              "OMP_NUM_THREADS=1 " + launcher + program + " --gtest_filter='" + filter +
                              "' > " + (folder / "output").string() + " 2>&1";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_bytes(folder / "output")};
}

inline JobOutcome run_child_alone(const std::string& filter) { return run_child("", filter); }

/// is_child() in them.
inline JobOutcome run_child_job(int ranks, const std::string& filter) {
  return run_child(std::string(kIsChild) +
                       "=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                       "OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none "
                       "timeout 60 mpirun -n " +
                       std::to_string(ranks) + " --oversubscribe --bind-to none ",
                   filter);
}

}  // namespace efface::testing
