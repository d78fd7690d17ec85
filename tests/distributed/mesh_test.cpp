#include "distributed/mesh.hpp"

#include "distributed/error.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::world;

std::string refusal(int tensor, int data) {
  try {
    make_mesh(world(), tensor, data);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::usage);
    return error.what();
  }
  ADD_FAILURE() << tensor << " x " << data << " was accepted";
  return "";
}

TEST(Mesh, TensorRanksAreNeighboursOnEveryShape) {
  const int size = world().size();
  for (int tensor = 1; tensor <= size; ++tensor) {
    if (size % tensor != 0) continue;
    const auto mesh = make_mesh(world(), tensor, size / tensor);
    EXPECT_EQ(mesh.tensor_size(), tensor);
    EXPECT_EQ(mesh.data_size(), size / tensor);
    EXPECT_EQ(world().rank(), mesh.data_rank() * tensor + mesh.tensor_rank());
    EXPECT_EQ(mesh.device, at::Device(at::kCPU));
    EXPECT_EQ(mesh.is_root(), world().rank() == 0);

    // The groups' members, not only their sizes.
    const auto tensor_members = mesh.tensor.all_gather(at::full({1}, world().rank(), at::kLong));
    const auto data_members = mesh.data.all_gather(at::full({1}, world().rank(), at::kLong));
    for (int t = 0; t < tensor; ++t)
      EXPECT_EQ(tensor_members[t].item<int64_t>(), mesh.data_rank() * tensor + t);
    for (int d = 0; d < size / tensor; ++d)
      EXPECT_EQ(data_members[d].item<int64_t>(), d * tensor + mesh.tensor_rank());
  }
}

TEST(Mesh, FillsInTheSizeThatIsLeftOut) {
  const int size = world().size();
  EXPECT_EQ(make_mesh(world(), 0, 0).data_size(), size);
  EXPECT_EQ(make_mesh(world(), size, 0).tensor_size(), size);
  EXPECT_EQ(make_mesh(world(), 0, 1).tensor_size(), size);
  EXPECT_EQ(make_mesh(world(), 1, 0).data_size(), size);
}

TEST(Mesh, RefusesShapesThatDoNotMakeTheWorldAndNamesBothSizes) {
  const int size = world().size();
  const auto text = refusal(size + 1, 2);
  EXPECT_NE(text.find("tensor " + std::to_string(size + 1) + " x data 2"), std::string::npos) << text;
  EXPECT_NE(text.find(std::to_string(size) + " ranks"), std::string::npos) << text;
  refusal(size + 1, 0);
  refusal(0, size + 1);
  refusal(-1, 1);
  if (size == 3) refusal(2, 0);
}

TEST(Mesh, ASingleMeshIsThisRankAlone) {
  const auto mesh = single_mesh();
  EXPECT_EQ(mesh.world.size() * mesh.tensor.size() * mesh.data.size(), 1);
  EXPECT_TRUE(mesh.is_root());
}

TEST(Mesh, AGpuThatIsNotThereIsAnError) {
#ifdef EFFACE_WITH_CUDA
  if (at::globalContext().deviceCount(at::kCUDA) > 0) GTEST_SKIP() << "this machine has a GPU";
#endif
  EXPECT_THROW(make_mesh(world(), 0, 0, at::kCUDA), Error);
}

TEST(EvenRange, CoversEverythingOnceInOrderWithSizesThatDifferByOneAtMost) {
  for (int64_t n : {0, 1, 5, 6, 49152})
    for (int parts : {1, 2, 3, 4, 7}) {
      int64_t expected_begin = 0, shortest = n, longest = 0;
      for (int i = 0; i < parts; ++i) {
        const auto [begin, end] = even_range(n, i, parts);
        EXPECT_EQ(begin, expected_begin);
        expected_begin = end;
        shortest = std::min(shortest, end - begin);
        longest = std::max(longest, end - begin);
      }
      EXPECT_EQ(expected_begin, n);
      EXPECT_LE(longest - shortest, 1);
    }
}

}  // namespace
}  // namespace efface
