#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::world;

constexpr char kIsChild[] = "EFFACE_TEST_ABORT";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : std::string(name) + "='" + value + "' ";
}

/// Runs this very program on 3 ranks, outside the MPI job it belongs to. @return its exit code
int run_on_three_ranks(const std::string& filter) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command =
      "env -i " + variable("PATH") + variable("HOME") + variable("LD_LIBRARY_PATH") + kIsChild +
      "=1 OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
      "OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none "
      "timeout 60 mpirun -n 3 --oversubscribe --bind-to none " +
      program + " --gtest_filter=" + filter + " > /dev/null 2>&1";
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(MpiSession, AbortOnOneRankEndsTheWaitingOnesWithItsCode) {
  if (std::getenv(kIsChild) != nullptr) {
    if (world().rank() == 1) MpiSession::abort(7);
    world().barrier();  // never completed: rank 1 does not come
    return;
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(run_on_three_ranks("MpiSession.AbortOnOneRank*"), 7);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(50)) << "the others hung";
}

TEST(MpiSession, GivesALoneProcessAWorldOfOne) {
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const auto program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "env -i " + variable("PATH") + variable("HOME") + variable("LD_LIBRARY_PATH") +
                              "OMP_NUM_THREADS=1 " + program +
                              " --gtest_filter=Communicator.SumsMaxima*:Mesh.Fills* > /dev/null 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace efface
