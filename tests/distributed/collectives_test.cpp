#include "distributed/collectives.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "distributed/mesh.hpp"
#include "distributed/philox.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::relative_error;
using testing::world;

at::Tensor random_matrix(const std::string& name, int64_t rows, int64_t columns) {
  return philox_normal({5, "collectives_test", name}, rows, columns).to(at::kDouble);
}

at::Tensor trainable(const at::Tensor& tensor) { return tensor.detach().clone().requires_grad_(true); }

std::vector<at::Tensor> gradients(const at::Tensor& loss, const std::vector<at::Tensor>& inputs) {
  return torch::autograd::grad({loss}, inputs);
}

/// This rank's part of dimension `dim`.
at::Tensor shard(const at::Tensor& tensor, int64_t dim) {
  const auto [begin, end] = even_range(tensor.size(dim), world().rank(), world().size());
  return tensor.narrow(dim, begin, end - begin);
}

constexpr int64_t kTokens = 5, kHidden = 6, kInner = 12;

struct FeedForward {
  at::Tensor x = random_matrix("x", kTokens, kHidden);
  at::Tensor up = random_matrix("up", kInner, kHidden);      // column-parallel: rows are sharded
  at::Tensor down = random_matrix("down", kHidden, kInner);  // row-parallel: columns are sharded
  at::Tensor target = random_matrix("target", kTokens, kHidden);

  at::Tensor loss(const at::Tensor& out) const { return (out - target).tanh().square().sum(); }
};

TEST(Collectives, ColumnThenRowParallelLayersHaveTheGradientsOfTheWholeOnes) {
  const FeedForward all;
  const auto x = trainable(all.x), up = trainable(all.up), down = trainable(all.down);
  const auto expected_loss = all.loss(at::matmul(at::silu(at::matmul(x, up.t())), down.t()));
  const auto expected = gradients(expected_loss, {x, up, down});

  const auto my_x = trainable(all.x), my_up = trainable(shard(all.up, 0)),
             my_down = trainable(shard(all.down, 1));
  const auto inner = at::silu(at::matmul(copy_to_group(my_x, world()), my_up.t()));
  const auto loss = all.loss(reduce_from_group(at::matmul(inner, my_down.t()), world()));
  const auto mine = gradients(loss, {my_x, my_up, my_down});

  EXPECT_LT(relative_error(loss, expected_loss), 1e-13);
  EXPECT_LT(relative_error(mine[0], expected[0]), 1e-12);
  EXPECT_LT(relative_error(mine[1], shard(expected[1], 0)), 1e-12);
  EXPECT_LT(relative_error(mine[2], shard(expected[2], 1)), 1e-12);
}

/// A P of a row-parallel module, A_r - (sum_s A_s U_s) U_r^T, under a loss that each rank uses its own part
/// of.
struct ProjectedAdapter {
  at::Tensor a = random_matrix("a", 3, kInner);
  at::Tensor basis = std::get<0>(at::linalg_qr(random_matrix("basis", kInner, 4)));
  at::Tensor weight = random_matrix("weight", 3, kInner);

  at::Tensor expected_gradient() const {
    const auto whole = trainable(a);
    const auto projected = whole - at::matmul(at::matmul(whole, basis), basis.t());
    return gradients((projected * weight).tanh().sum(), {whole})[0];
  }
  template <typename Sum>
  at::Tensor gradient_of_shard(const Sum& sum) const {
    const auto mine = trainable(shard(a, 1));
    const auto u = shard(basis, 0);
    const auto projected = mine - at::matmul(sum(at::matmul(mine, u)), u.t());
    return gradients((projected * shard(weight, 1)).tanh().sum(), {mine})[0];
  }
};

TEST(Collectives, AProjectedRowParallelAdapterNeedsTheSumBackwardToo) {
  const ProjectedAdapter adapter;
  const auto expected = shard(adapter.expected_gradient(), 1);
  const auto right = adapter.gradient_of_shard([](const auto& t) { return all_reduce_sum(t, world()); });
  EXPECT_LT(relative_error(right, expected), 1e-12);
  if (world().size() == 1) return;
  const auto wrong = adapter.gradient_of_shard([](const auto& t) { return reduce_from_group(t, world()); });
  EXPECT_GT(relative_error(wrong, expected), 1e-2) << "identity backward must not pass for the sum";
}

TEST(Collectives, SumTheValuesForward) {
  const auto input = trainable(at::full({3}, world().rank() + 1, at::kDouble));
  const double sum = world().size() * (world().size() + 1) / 2.;
  EXPECT_EQ(copy_to_group(input, world())[0].item<double>(), world().rank() + 1);
  EXPECT_EQ(reduce_from_group(input, world())[1].item<double>(), sum);
  EXPECT_EQ(all_reduce_sum(input, world())[2].item<double>(), sum);
  EXPECT_EQ(input[0].item<double>(), world().rank() + 1) << "the input itself must stay";
}

TEST(Collectives, WorkTheSameWithoutGradients) {
  at::NoGradGuard no_grad;
  const auto input = trainable(at::full({3}, world().rank() + 1, at::kDouble));
  EXPECT_TRUE(copy_to_group(input, world()).is_same(input));
  EXPECT_EQ(all_reduce_sum(input, world())[0].item<double>(), world().size() * (world().size() + 1) / 2.);
}

TEST(Collectives, LeaveAGroupOfOneUntouched) {
  const Communicator alone;
  const auto input = trainable(at::ones({2}));
  EXPECT_TRUE(copy_to_group(input, alone).is_same(input));
  EXPECT_TRUE(reduce_from_group(input, alone).is_same(input));
  EXPECT_TRUE(all_reduce_sum(input, alone).is_same(input));
  EXPECT_TRUE(alone.traffic().empty());
}

TEST(Collectives, CountTheTrafficOfBackwardInTheGroup) {
  EFFACE_NEEDS_RANKS(world().size() > 1);
  const auto group = world().split(0, world().rank());
  const auto input = trainable(at::ones({4}, at::kDouble));
  const auto output = copy_to_group(input, group).sum();
  EXPECT_TRUE(group.traffic().empty());
  gradients(output, {input});
  EXPECT_EQ(group.traffic().at("all_reduce").bytes, 32);
}

}  // namespace
}  // namespace efface
