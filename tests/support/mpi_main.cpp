// main() of every test program: MPI for the life of the run, one world.
#include <gtest/gtest.h>

#include <iostream>

#include "distributed/communicator.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {
Communicator* g_world = nullptr;

/// Ranks other than 0 print only their failures, with the rank in front.
class RankListener : public ::testing::EmptyTestEventListener {
 public:
  explicit RankListener(int rank) : rank_(rank) {}
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.failed())
      std::cerr << "[rank " << rank_ << "] " << (result.file_name() ? result.file_name() : "") << ":"
                << result.line_number() << ": " << result.summary() << "\n";
  }

 private:
  int rank_;
};

/// A test that fails on any rank fails on rank 0, which writes the results.
class AllRanksAgree : public ::testing::EmptyTestEventListener {
 public:
  explicit AllRanksAgree(const Communicator& world) : world_(world) {}
  void OnTestEnd(const ::testing::TestInfo& info) override {
    const bool here = info.result()->Failed();
    const auto failed_ranks = world_.all_reduce(static_cast<int64_t>(here));
    if (world_.rank() == 0 && !here && failed_ranks > 0)
      ADD_FAILURE() << "failed on " << failed_ranks << " other ranks";
  }

 private:
  const Communicator& world_;
};
}  // namespace

const Communicator& world() { return *g_world; }
}  // namespace efface::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  int failed = 1;
  {
    efface::MpiSession session(&argc, &argv);
    efface::Communicator world = session.world();
    efface::testing::g_world = &world;
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (world.rank() != 0) {
      delete listeners.Release(listeners.default_xml_generator());  // rank 0 alone writes the result file
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new efface::testing::RankListener(world.rank()));
    }
    if (world.size() > 1) listeners.Append(new efface::testing::AllRanksAgree(world));
    failed = RUN_ALL_TESTS();
    failed = static_cast<int>(world.all_reduce(static_cast<int64_t>(failed), efface::Reduction::max));
  }
  return failed;
}
