#include "core/storage/run_directory.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

#include "distributed/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface {
namespace {

using nlohmann::json;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::world;
using testing::write_bytes;

constexpr auto kShared = TemporaryFolder::Kind::shared;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::storage);
    return error.what();
  }
  return "";
}

std::string lock_of(const std::string& host, int64_t pid) {
  return json{{"host", host}, {"pid", pid}, {"started", "1"}}.dump();
}

std::string this_host() {
  char host[256] = "";
  ::gethostname(host, sizeof(host) - 1);
  return host;
}

TEST(RunDirectory, AStageIsDoneOnlyForTheKeyItWasDoneWith) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder / "run", world());
  const json key = {{"model", "abc"}, {"train", {{"lr", 0.001}, {"steps", {1, 2, 3}}}}};
  EXPECT_FALSE(run.is_done("unlearn", key));
  EXPECT_EQ(run.why_stale("unlearn", key), "never run");
  run.mark_done("unlearn", key, {{"loss", 1.5}});
  EXPECT_TRUE(run.is_done("unlearn", key));
  EXPECT_EQ(run.why_stale("unlearn", key), "");
  EXPECT_EQ(run.summary("unlearn")["loss"], 1.5);
  EXPECT_FALSE(run.is_done("trace", key)) << "another stage";

  json other = key;
  other["train"]["lr"] = 0.002;
  EXPECT_FALSE(run.is_done("unlearn", other));
  EXPECT_EQ(run.why_stale("unlearn", other), "/train/lr was 0.001, is 0.002");
  other = key;
  other["train"]["steps"][1] = 7;
  EXPECT_EQ(run.why_stale("unlearn", other), "/train/steps/1 was 2, is 7");
  other = key;
  other["seed"] = 1;
  EXPECT_EQ(run.why_stale("unlearn", other), "/seed was nothing, is 1");
  world().barrier();
}

TEST(RunDirectory, OrderOfKeysDoesNotMatterAndTypesDo) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder.path(), world());
  run.mark_done("s", json::parse(R"({"a":1,"b":2})"), {});
  EXPECT_TRUE(run.is_done("s", json::parse(R"({"b":2,"a":1})")));
  EXPECT_FALSE(run.is_done("s", json::parse(R"({"b":2,"a":"1"})")));
}

TEST(RunDirectory, ADamagedMarkCountsAsNotDone) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder.path(), world());
  const json key = {{"a", 1}};
  run.mark_done("s", key, {});
  const std::string mark = read_bytes(folder / "s" / "done.json");
  for (const std::string& damaged : {mark.substr(0, mark.size() / 2), std::string(), std::string("[1]")}) {
    world().barrier();
    if (world().rank() == 0) write_bytes(folder / "s" / "done.json", damaged);
    EXPECT_FALSE(run.is_done("s", key));
    EXPECT_NE(run.why_stale("s", key).find("done.json is damaged"), std::string::npos);
  }
  EXPECT_THROW(run.summary("s"), Error);
  world().barrier();
}

TEST(RunDirectory, ADamagedSummaryCountsAsNotDoneThoughItIsJson) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder.path(), world());
  run.mark_done("s", 1, {{"loss", 1.5}});
  EXPECT_TRUE(run.is_done("s", 1));
  world().barrier();
  if (world().rank() == 0) {
    std::string mark = read_bytes(folder / "s" / "done.json");
    mark.replace(mark.find("1.5"), 3, "7.5");
    write_bytes(folder / "s" / "done.json", mark);
  }
  EXPECT_FALSE(run.is_done("s", 1));
}

TEST(RunDirectory, FilesThatAreNotAsTheStageLeftThemAreNamed) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder.path(), world());
  const auto stage = run.stage_folder("s");
  world().barrier();
  if (world().rank() == 0) {
    std::filesystem::create_directories(stage / "sub");
    std::filesystem::create_directories(stage / "checkpoint");
    for (const char* file : {"cut", "sub/changed", "gone", "whole", "checkpoint/own"})
      write_bytes(stage / file, "abcdef");
  }
  run.mark_done("s", 1, {});
  EXPECT_TRUE(run.damaged("s").empty());
  world().barrier();
  if (world().rank() == 0) {
    write_bytes(stage / "cut", "abc");
    write_bytes(stage / "sub/changed", std::string("ab\0def", 6));
    std::filesystem::remove(stage / "gone");
    write_bytes(stage / "checkpoint/own", "x");
  }
  world().barrier();
  const std::map<std::string, std::string> expected = {
      {"cut", "has 3 bytes, not 6"},
      {"gone", "is missing"},
      {"sub/changed", "is damaged: the checksum does not match"}};
  EXPECT_EQ(run.damaged("s"), expected);
  EXPECT_TRUE(run.damaged("never run").empty());
  run.clear("s", {"checkpoint"});
  EXPECT_TRUE(std::filesystem::exists(stage / "checkpoint/own"));
  EXPECT_FALSE(std::filesystem::exists(stage / "whole"));
  world().barrier();
}

TEST(RunDirectory, ClearEmptiesTheStageAlone) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder.path(), world());
  run.mark_done("a", 1, {});
  run.mark_done("b", 1, {});
  if (world().rank() == 0) {
    std::filesystem::create_directories(run.stage_folder("a") / "sub");
    write_bytes(run.stage_folder("a") / "sub" / "x.h5", "x");
  }
  run.clear("a");
  EXPECT_TRUE(std::filesystem::is_empty(run.stage_folder("a")));
  EXPECT_TRUE(run.is_done("b", 1));
  EXPECT_FALSE(run.is_done("a", 1));
}

TEST(RunDirectory, AStageCannotLeaveTheRun) {
  TemporaryFolder folder(kShared);
  RunDirectory run(folder.path(), world());
  for (const std::string name : {"", ".", "..", "../x", "/tmp", "a/../../x"})
    EXPECT_THROW(run.stage_folder(name), Error) << name;
  EXPECT_TRUE(std::filesystem::is_directory(run.stage_folder("unlearn/nsru")));
  world().barrier();
}

TEST(RunDirectory, ASecondRunIsRefusedOnEveryRankAndToldWhoHoldsIt) {
  TemporaryFolder folder(kShared);
  {
    RunDirectory first(folder.path(), world());
    const int64_t pid = world().all_reduce(static_cast<int64_t>(world().rank() == 0 ? ::getpid() : 0));
    const std::string message = message_of([&] { RunDirectory second(folder.path(), world()); });
    EXPECT_NE(message.find(std::to_string(pid)), std::string::npos) << message;
    EXPECT_NE(message.find(this_host()), std::string::npos) << message;
    RunDirectory copy = first;
  }
  world().barrier();
  EXPECT_FALSE(std::filesystem::exists(folder / "run.lock"));
  EXPECT_EQ(message_of([&] { RunDirectory again(folder.path(), world()); }), "");
}

TEST(RunDirectory, ALockOfADeadProcessIsTakenOverAndOneOfAnotherHostIsNot) {
  TemporaryFolder folder(kShared);
  const int64_t beyond_any_pid = int64_t{1} << 30;
  if (world().rank() == 0) write_bytes(folder / "run.lock", lock_of(this_host(), beyond_any_pid));
  EXPECT_EQ(message_of([&] { RunDirectory run(folder.path(), world()); }), "");
  // A live process of that number, but one that started at another time.
  if (world().rank() == 0) write_bytes(folder / "run.lock", lock_of(this_host(), ::getpid()));
  EXPECT_EQ(message_of([&] { RunDirectory run(folder.path(), world()); }), "");
  if (world().rank() == 0) write_bytes(folder / "run.lock", lock_of("another-host", 1));
  EXPECT_NE(message_of([&] { RunDirectory run(folder.path(), world()); }).find("another-host"),
            std::string::npos);
}

TEST(RunDirectory, ALockOfAProcessThatHasEndedButWasNotWaitedForIsTakenOver) {
  TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t ended;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  std::string stat = read_bytes("/proc/" + std::to_string(child) + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string start;
  for (int field = 0; field < 20; ++field) fields >> start;
  write_bytes(folder / "run.lock", json{{"host", this_host()}, {"pid", child}, {"started", start}}.dump());
  EXPECT_EQ(message_of([&] { RunDirectory run(folder.path(), Communicator()); }), "");
  ::waitpid(child, nullptr, 0);
}

TEST(RunDirectory, AFolderThatCannotBeMadeIsAnErrorOnEveryRank) {
  TemporaryFolder folder(kShared);
  if (world().rank() == 0) write_bytes(folder / "file", "x");
  world().barrier();
  EXPECT_NE(message_of([&] { RunDirectory run(folder / "file" / "run", world()); }), "");
}

TEST(RunDirectory, MetricsAreLinesAndHalfALineOfAKilledRunIsNamedAndDropped) {
  TemporaryFolder folder(kShared);
  if (world().rank() == 0) write_bytes(folder / "metrics.jsonl", "{\"step\":1}\n{\"st");
  {
    RunDirectory run(folder.path(), world());
    if (world().rank() == 0) {
      ASSERT_EQ(run.problems().size(), 1u);
      EXPECT_NE(run.problems()[0].find("metrics.jsonl:2"), std::string::npos) << run.problems()[0];
    }
    run.append_metric({{"step", 2}});
    run.append_metric({{"text", "two\nlines"}});
    world().barrier();
  }
  EXPECT_EQ(read_bytes(folder / "metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"text\":\"two\\nlines\"}\n");
}

TEST(TextFile, ComesBackAndAppearsWhole) {
  TemporaryFolder folder;
  const std::string text("a\0b\n", 4);
  write_text_file(folder / "t", text);
  EXPECT_EQ(read_text_file(folder / "t"), text);
  write_text_file(folder / "t", "");
  EXPECT_EQ(read_text_file(folder / "t"), "");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_NE(message_of([&] { read_text_file(folder / "none"); }).find("none"), std::string::npos);
  EXPECT_NE(message_of([&] { write_text_file(folder / "no" / "t", "x"); }).find("no"), std::string::npos);
}

TEST(HashText, IsFnv1a) {
  // The published test vectors of 64-bit FNV-1a.
  EXPECT_EQ(hash_text(""), "cbf29ce484222325");
  EXPECT_EQ(hash_text("a"), "af63dc4c8601ec8c");
  EXPECT_EQ(hash_text("foobar"), "85944171f73967e8");
}

}  // namespace
}  // namespace efface
