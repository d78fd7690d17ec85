#include <chrono>

#include "tests/distributed/child_job.hpp"

namespace efface {
namespace {

using testing::world;

TEST(MpiSession, AbortOnOneRankEndsTheWaitingOnesWithItsCode) {
  if (testing::is_child()) {
    if (world().rank() == 1) MpiSession::abort(7);
    world().barrier();  // never completed: rank 1 does not come
    return;
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(testing::run_child_job(3, "MpiSession.AbortOnOneRank*").code, 7);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(50)) << "the others hung";
}

TEST(MpiSession, GivesALoneProcessAWorldOfOne) {
  EFFACE_NEEDS_RANKS(world().size() == 1);
  EXPECT_EQ(testing::run_child_alone("Communicator.SumsMaxima*:Mesh.Fills*").code, 0);
}

}  // namespace
}  // namespace efface
