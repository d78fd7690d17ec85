#include "distributed/communicator.hpp"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <thread>

#include "distributed/error.hpp"
#include "distributed/philox.hpp"
#include "distributed/threads.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::world;

constexpr at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf,
                                     at::kLong,   at::kInt,   at::kShort,    at::kByte};

/// What rank r holds: small integers, exact in every type.
at::Tensor of_rank(int rank, at::ScalarType type, int64_t n = 10) {
  return (at::arange(n, at::kLong).remainder(5) + rank + 1).to(type);
}

TEST(Communicator, SumsMaximaAndMinimaOfEveryType) {
  const int size = world().size();
  for (auto type : kTypes) {
    auto sum = at::zeros({10}, at::kLong);
    for (int r = 0; r < size; ++r) sum += of_rank(r, at::kLong);
    for (auto [op, expected] :
         {std::pair{Reduction::sum, sum}, std::pair{Reduction::max, of_rank(size - 1, at::kLong)},
          std::pair{Reduction::min, of_rank(0, at::kLong)}}) {
      auto tensor = of_rank(world().rank(), type);
      world().all_reduce(tensor, op);
      EXPECT_TRUE(at::equal(tensor, expected.to(type))) << at::toString(type);
    }
  }
}

TEST(Communicator, SumsOfBooleansAreOrAndMinimaAreAnd) {
  const auto mine = at::tensor({world().rank() == 0 ? 1 : 0, 1, 0}, at::kInt).to(at::kBool);
  auto any = mine.clone(), all = mine.clone();
  world().all_reduce(any);
  world().all_reduce(all, Reduction::min);
  EXPECT_TRUE(at::equal(any.to(at::kInt), at::tensor({1, 1, 0}, at::kInt)));
  EXPECT_TRUE(at::equal(all.to(at::kInt), at::tensor({world().size() == 1 ? 1 : 0, 1, 0}, at::kInt)));
}

TEST(Communicator, AccumulatesHalfPrecisionSumsInFp32) {
  EFFACE_NEEDS_RANKS(world().size() >= 3);
  // 256 + 1 rounds back to 256 in bf16 (8 bits), so a sum rounded at every step would lose all the ones.
  auto tensor = at::full({4}, world().rank() == 0 ? 256 : 1, at::kBFloat16);
  world().all_reduce(tensor);
  EXPECT_EQ(tensor[0].item<float>(),
            at::tensor(255.F + world().size(), at::kFloat).to(at::kBFloat16).item<float>());
  EXPECT_NE(tensor[0].item<float>(), 256);
  auto wide = at::full({world().size()}, world().rank() == 0 ? 256 : 1, at::kBFloat16);
  EXPECT_EQ(world().reduce_scatter(wide)[0].item<float>(), tensor[0].item<float>());
}

TEST(Communicator, GivesEveryRankTheSameBits) {
  auto tensor = philox_normal({1, "communicator_test", ""}, 1, 100'003, world().rank());
  world().all_reduce(tensor);
  auto highest = tensor.clone(), lowest = tensor.clone();
  world().all_reduce(highest, Reduction::max);
  world().all_reduce(lowest, Reduction::min);
  EXPECT_TRUE(at::equal(highest, lowest));
}

TEST(Communicator, ReducesViewsInPlace) {
  auto matrix = at::zeros({4, 6});
  world().all_reduce(matrix.t().narrow(0, 1, 2).fill_(1));
  EXPECT_EQ(matrix.select(1, 1).min().item<float>(), world().size());
  EXPECT_EQ(matrix.sum().item<float>(), 8 * world().size());
}

TEST(Communicator, ReducesScalars) {
  EXPECT_EQ(world().all_reduce(1.5), 1.5 * world().size());
  EXPECT_EQ(world().all_reduce(int64_t{world().rank()}, Reduction::max), world().size() - 1);
  // Beyond what a double could carry.
  EXPECT_EQ(world().all_reduce((int64_t{1} << 60) + 1, Reduction::min), (int64_t{1} << 60) + 1);
}

TEST(Communicator, ReduceScatterIsTheSliceOfTheSum) {
  const int size = world().size(), rank = world().rank();
  for (auto type : kTypes) {
    const auto mine = of_rank(rank, type, int64_t{size} * 6).view({size * 2, 3});
    auto sum = mine.clone();
    world().all_reduce(sum);
    EXPECT_TRUE(at::equal(world().reduce_scatter(mine), sum.narrow(0, rank * 2, 2))) << at::toString(type);
  }
}

TEST(Communicator, ReduceScatterRefusesRowsThatDoNotDivide) {
  EFFACE_NEEDS_RANKS(world().size() > 1);
  EXPECT_THROW(world().reduce_scatter(at::ones({world().size() + 1, 2})), Error);
}

TEST(Communicator, AllGatherIsInRankOrder) {
  for (auto type : kTypes) {
    const auto all = world().all_gather(of_rank(world().rank(), type).view({2, 5}));
    ASSERT_EQ(all.sizes(), (at::IntArrayRef{world().size() * 2, 5}));
    for (int r = 0; r < world().size(); ++r)
      EXPECT_TRUE(at::equal(all.narrow(0, r * 2, 2), of_rank(r, type).view({2, 5})));
  }
}

TEST(Communicator, AllGatherRowsTakesAnyNumberOfRows) {
  // Rank r brings r rows: rank 0 brings none.
  const auto all = world().all_gather_rows(at::full({world().rank(), 3}, world().rank(), at::kFloat));
  std::vector<at::Tensor> expected;
  for (int r = 0; r < world().size(); ++r) expected.push_back(at::full({r, 3}, r, at::kFloat));
  EXPECT_TRUE(at::equal(all, at::cat(expected)));
}

TEST(Communicator, BroadcastsTensorsAndTexts) {
  for (int root = 0; root < world().size(); ++root) {
    auto tensor = at::full({3}, world().rank(), at::kBFloat16);
    world().broadcast(tensor, root);
    EXPECT_EQ(tensor[2].item<float>(), root);
    const std::string text = world().rank() == root ? std::string("a\0b\xc3\xa4", 5) : "other, and longer";
    EXPECT_EQ(world().broadcast(text, root), std::string("a\0b\xc3\xa4", 5));
    EXPECT_EQ(world().broadcast(std::string(world().rank() == root ? "" : "x"), root), "");
  }
}

TEST(Communicator, SendsRoundARing) {
  EFFACE_NEEDS_RANKS(world().size() > 1);
  const int size = world().size(), rank = world().rank();
  auto token = at::zeros({2}, at::kLong);
  if (rank > 0) world().receive(token, rank - 1, 5);
  token[0] += rank;
  world().send(token, (rank + 1) % size, 5);
  if (rank == 0) {
    world().receive(token, size - 1, 5);
    EXPECT_EQ(token[0].item<int64_t>(), size * (size - 1) / 2);
  }
}

TEST(Communicator, SplitsByColourAndOrdersByKey) {
  const int size = world().size(), rank = world().rank();
  const auto half = world().split(rank % 2, -rank);
  const int members = (size + 1 - rank % 2) / 2;
  EXPECT_EQ(half.size(), members);
  EXPECT_EQ(half.rank(), members - 1 - rank / 2);
  int expected = 0;
  for (int r = rank % 2; r < size; r += 2) expected += r;
  EXPECT_EQ(half.all_reduce(int64_t{rank}), expected);
  const auto quarter = half.split(half.rank(), 0);
  EXPECT_EQ(quarter.size(), 1);
  EXPECT_EQ(quarter.all_reduce(int64_t{rank}), rank);
}

TEST(Communicator, SplitsMessagesThatOnePieceCannotHold) {
  EFFACE_NEEDS_RANKS(world().size() == 2);
  // 66 MiB, just over a piece of 64 MiB; positions on both sides of the cut carry their index.
  const int64_t n = (int64_t{66} << 20) / 4, cut = (int64_t{64} << 20) / 4;
  const int rank = world().rank();
  auto tensor = at::full({n}, 1, at::kInt);
  for (int64_t i : {int64_t{0}, cut - 1, cut, n - 1}) tensor[i] = i;
  world().all_reduce(tensor);
  for (int64_t i : {int64_t{0}, cut - 1, cut, n - 1}) EXPECT_EQ(tensor[i].item<int64_t>(), 2 * i);
  EXPECT_EQ(tensor.sum().item<int64_t>(), 2 * (n - 4 + cut - 1 + cut + n - 1));

  if (rank == 1) tensor.zero_();
  world().broadcast(tensor, 0);
  EXPECT_EQ(tensor[cut].item<int64_t>(), 2 * cut);
  EXPECT_EQ(tensor[n - 1].item<int64_t>(), 2 * (n - 1));

  // Two blocks of 33 MiB: a piece of each is 32 MiB.
  const auto part = world().reduce_scatter(tensor);
  EXPECT_EQ(part[part.size(0) - 1].item<int64_t>(), rank == 0 ? 4 : 4 * (n - 1));
  const auto all = world().all_gather(part);
  EXPECT_EQ(all[cut].item<int64_t>(), 4 * cut);
  EXPECT_EQ(all[n - 1].item<int64_t>(), 4 * (n - 1));
}

TEST(Communicator, CountsCallsAndBytesByOperation) {
  const auto group = world().split(0, world().rank());
  EXPECT_TRUE(group.traffic().empty());
  group.all_reduce(at::ones({10}, at::kDouble));
  group.all_reduce(at::ones({3}, at::kBFloat16));
  group.all_gather(at::ones({4}, at::kFloat));
  const auto copy = group;
  copy.broadcast(at::ones({1}, at::kLong), 0);
  EXPECT_EQ(group.traffic().at("all_reduce").calls, 2);
  EXPECT_EQ(group.traffic().at("all_reduce").bytes, 86);
  EXPECT_EQ(group.traffic().at("all_gather").bytes, 16);
  EXPECT_EQ(group.traffic().at("broadcast").calls, 1);
  EXPECT_GT(group.traffic().at("all_reduce").seconds, 0);
}

TEST(Communicator, EmptyTensorsPassThroughEveryOperation) {
  const auto empty = at::empty({0, 4});
  world().all_reduce(empty);
  world().broadcast(empty, 0);
  EXPECT_EQ(world().all_gather(empty).sizes(), (at::IntArrayRef{0, 4}));
  EXPECT_EQ(world().reduce_scatter(empty).sizes(), (at::IntArrayRef{0, 4}));
  EXPECT_EQ(world().all_gather_rows(empty).sizes(), (at::IntArrayRef{0, 4}));
}

TEST(Communicator, AGroupOfThisRankAloneIsTheIdentity) {
  const Communicator alone;
  auto tensor = at::arange(6, at::kFloat).view({2, 3});
  const auto before = tensor.clone();
  alone.all_reduce(tensor);
  EXPECT_TRUE(at::equal(tensor, before));
  EXPECT_TRUE(at::equal(alone.all_gather(tensor), before));
  EXPECT_TRUE(at::equal(alone.all_gather_rows(tensor), before));
  EXPECT_TRUE(at::equal(alone.reduce_scatter(tensor), before));
  EXPECT_EQ(alone.broadcast(std::string("text"), 0), "text");
  EXPECT_EQ(alone.split(3, 4).size(), 1);
  EXPECT_EQ(mpi_fortran_handle(alone), -1);
  EXPECT_THROW(alone.send(tensor, 0), Error);
}

TEST(Communicator, AWrongRankIsAnErrorAndNotTheEndOfTheProgram) {
  EFFACE_NEEDS_RANKS(world().size() > 1);
  try {
    world().send(at::ones({1}), world().size() + 7);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::communication);
    EXPECT_NE(std::string(error.what()).find("send"), std::string::npos) << error.what();
  }
}

TEST(Communicator, RefusesTypesItCannotReduce) {
  EFFACE_NEEDS_RANKS(world().size() > 1);
  EXPECT_THROW(world().all_reduce(at::ones({2}, at::kComplexFloat)), Error);
}

TEST(NcclCommunicator, SaysWhyItCannotBeMadeWithoutAGpu) {
  bool gpu = false;
#ifdef EFFACE_WITH_CUDA
  gpu = at::hasCUDA() && at::globalContext().deviceCount(at::kCUDA) > 0;
#endif
  if (gpu) GTEST_SKIP() << "this machine has a GPU";
  try {
    make_nccl_communicator(world(), 0);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::communication) << error.what();
  }
}

TEST(NodePlace, NumbersTheRanksOfANodeInOrder) {
  const auto place = place_on_node(world());
  EXPECT_LT(place.rank, place.size);
  EXPECT_EQ(place.node + place.rank, world().rank());  // tests run on one node
  EXPECT_EQ(place_on_node(Communicator()).size, 1);
}

TEST(Threads, FollowOmpNumThreadsAndWarnWhenTheCoresDoNotSuffice) {
  const char* set = std::getenv("OMP_NUM_THREADS");
  EFFACE_NEEDS_RANKS(set != nullptr);
  const std::string before = set;
  setenv("OMP_NUM_THREADS", "1", 1);
  const auto one = set_threads(world());
  EXPECT_EQ(one.threads, 1);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_EQ(one.warning, "");
  setenv("OMP_NUM_THREADS", "4000", 1);
  EXPECT_NE(set_threads(world()).warning.find("--bind-to none"), std::string::npos);
  unsetenv("OMP_NUM_THREADS");
  const auto own = set_threads(world());
  EXPECT_GE(own.threads, 1);
  const auto total = world().all_reduce(int64_t{own.threads});
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  EXPECT_LE(total, std::max<int64_t>(cores, world().size()));
  setenv("OMP_NUM_THREADS", before.c_str(), 1);
  set_threads(world());
}

}  // namespace
}  // namespace efface
