#include "distributed/eigensolvers/block_cyclic.hpp"

#include "distributed/mesh.hpp"

namespace efface {

BlockCyclicLayout block_cyclic_layout(int64_t n, int ranks, int64_t widest) {
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t most = divide_up(n, ranks);
  BlockCyclicLayout layout{n, ranks, 1, divide_up(most, widest)};
  layout.nb = divide_up(most, layout.blocks);
  return layout;
}

at::Tensor to_block_cyclic(const at::Tensor& local, const BlockCyclicLayout& layout, int rank, double pad) {
  const int64_t share = layout.rows(), rows = local.size(0);
  // [block k, rank s, i, l]: column (k P + s) nb + i is row k nb + i of rank s.
  auto cyclic = at::zeros({layout.blocks, layout.ranks, layout.nb, share}, at::kDouble);
  for (int s = 0; s < layout.ranks; ++s) {
    const auto [begin, end] = even_range(layout.n, s, layout.ranks);
    auto of_rank = at::zeros({share, share}, at::kDouble);  // [column, row]
    of_rank.narrow(0, 0, end - begin).narrow(1, 0, rows).copy_(local.narrow(1, begin, end - begin).t());
    if (s == rank) of_rank.diagonal().narrow(0, rows, share - rows).fill_(pad);
    cyclic.select(1, s).copy_(of_rank.view({layout.blocks, layout.nb, share}));
  }
  return cyclic.view({layout.padded(), share});
}

}  // namespace efface
