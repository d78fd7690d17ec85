// How a job ends when one of its ranks fails, is killed, or hangs: all of it, soon, with one line.
#include "distributed/job.hpp"

#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "distributed/activity.hpp"
#include "distributed/error.hpp"
#include "tests/distributed/child_job.hpp"

namespace efface {
namespace {

using ::testing::HasSubstr;
using testing::JobOutcome;
using testing::run_child_job;
using testing::world;
using Clock = std::chrono::steady_clock;

constexpr int kCommunication = static_cast<int>(ErrorClass::communication);
constexpr auto kAllGone = std::chrono::seconds(10);

std::string host() {
  char name[256] = "";
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

/// How the job of a test's child ended, in time and with one line.
JobOutcome ended(int ranks, const std::string& filter) {
  const auto begin = Clock::now();
  JobOutcome outcome = run_child_job(ranks, filter);
  EXPECT_LT(Clock::now() - begin, kAllGone);
  EXPECT_EQ(outcome.count("efface: error: "), 1) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("on " + host()));
  return outcome;
}

TEST(Job, AFailureOnOneRankEndsTheOthersWithItsCodeAndSaysWhereItWas) {
  if (testing::is_child()) {
    const Job job(world());
    note_stage("unlearn", "steps");
    note_done(12);
    if (world().rank() == 1) job.fail("it broke", 5);
    world().barrier();  // never completed
    return;
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const JobOutcome outcome = ended(3, "Job.AFailureOnOneRank*");
  EXPECT_EQ(outcome.code, 5) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("[rank 1 of 3 on " + host() + ", unlearn: 12 steps done] it broke"));
}

TEST(Job, AFailureOnAllRanksIsSaidOnceByTheFirst) {
  if (testing::is_child()) {
    const Job job(world());
    job.fail("all broke", 4);
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const JobOutcome outcome = ended(4, "Job.AFailureOnAllRanks*");
  EXPECT_EQ(outcome.code, 4) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("[rank 0 of 4"));
}

TEST(Job, AKilledRankIsMissedByName) {
  if (testing::is_child()) {
    const Job job(world());
    note_stage("covariance", "tokens");
    if (world().rank() == 2) ::raise(SIGKILL);
    world().barrier();
    return;
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const JobOutcome outcome = ended(3, "Job.AKilledRank*");
  EXPECT_EQ(outcome.code, 128 + SIGKILL) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr(", covariance, in barrier] rank 2 (pid "));
}

TEST(Job, AStalledCollectiveEndsTheJobAfterTheAllowedSilence) {
  if (testing::is_child()) {
    const Job job(world());
    allow_silence(1);
    note_stage("unlearn", "steps");
    if (world().rank() == 0) std::this_thread::sleep_for(std::chrono::minutes(1));
    world().all_reduce(1.0);
    return;
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const JobOutcome outcome = ended(3, "Job.AStalledCollective*");
  EXPECT_EQ(outcome.code, kCommunication) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("unlearn, in all_reduce] no progress for 1 s"));
}

TEST(Job, ARankStillAtWorkIsWaitedForUntilThen) {
  if (testing::is_child()) {
    const Job job(world());
    allow_silence(2);
    for (int part = 0; part < 10; ++part) {  // 4 s in all, never 2 s without a sign
      std::this_thread::sleep_for(std::chrono::milliseconds(400));
      if (world().rank() == 0 || part % 2 == 1) note_done(part);
    }
    return;
  }
  EFFACE_NEEDS_RANKS(world().size() == 1);
  const JobOutcome outcome = run_child_job(2, "Job.ARankStillAtWork*");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
}

TEST(Job, WithOneRankAFailureIsALineAndACode) {
  const Job job{Communicator()};
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(job.fail("it broke", 6), 6);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "efface: error: it broke\n");
}

TEST(Activity, NamesStageUnitsAndCollective) {
  note_stage("", "");
  EXPECT_EQ(current_activity().text(), "");
  note_stage("covariance", "tokens");
  EXPECT_EQ(current_activity().text(), "covariance");
  note_done(4096);
  const auto signs = current_activity().signs;
  {
    const InCollective outer("all_gather_rows");
    {
      const InCollective inner("all_gather");
      EXPECT_EQ(current_activity().text(), "covariance: 4096 tokens done, in all_gather");
    }
    EXPECT_EQ(current_activity().text(), "covariance: 4096 tokens done, in all_gather_rows");
  }
  EXPECT_EQ(current_activity().text(), "covariance: 4096 tokens done");
  EXPECT_STREQ(current_activity().collective, "all_gather");
  EXPECT_GT(current_activity().signs, signs);
}

TEST(Activity, IsNotedByEveryCollectiveOfACommunicator) {
  const auto before = current_activity().signs;
  world().all_reduce(1.0);
  EXPECT_STREQ(current_activity().collective, "all_reduce");
  world().barrier();
  EXPECT_STREQ(current_activity().collective, "barrier");
  EXPECT_GE(current_activity().signs, before + 4);
}

}  // namespace
}  // namespace efface
