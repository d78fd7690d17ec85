#include "core/storage/merged_json.hpp"

#include <gmock/gmock.h>

#include "distributed/error.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

using ::testing::IsEmpty;

TEST(ErrorsOfRanks, AreThoseOfAllRanksInTheirOrder) {
  const Communicator& all = world();
  EXPECT_THAT(errors_of_ranks(all, [] {}), IsEmpty());
  std::vector<std::string> expected;
  for (int rank = 0; rank < all.size(); ++rank)
    if (rank != 1) expected.push_back("disk of rank " + std::to_string(rank) + " is full");
  EXPECT_EQ(errors_of_ranks(all,
                            [&] {
                              if (all.rank() != 1)
                                throw Error(ErrorClass::storage,
                                            "disk of rank " + std::to_string(all.rank()) + " is full");
                            }),
            expected);
}

}  // namespace
}  // namespace efface::testing
