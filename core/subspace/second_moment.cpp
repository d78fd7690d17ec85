#include "core/subspace/second_moment.hpp"

#include <algorithm>

#include "distributed/mesh.hpp"
#include "distributed/parallel_ranges.hpp"

namespace efface {
namespace {

// Rows of a panel: wide enough for GEMM's full rate, narrow enough that a triangle wastes little above
// itself.
constexpr int64_t kPanel = 192;

// Writes what lies above the diagonal of a square from what lies below, a tile of the cache at a time.
void mirror_lower_(at::Tensor square) {
  if (!square.is_cpu()) {
    square.copy_(square.tril() + square.tril(-1).t());
    return;
  }
  constexpr int64_t kTile = 32;
  const int64_t n = square.size(0), stride = square.stride(0);
  double* const data = square.data_ptr<double>();
  const auto mirror_rows = [&](int64_t top) {
    for (int64_t left = top; left < n; left += kTile)
      for (int64_t i = top; i < std::min(n, top + kTile); ++i)
        for (int64_t j = std::max(left, i + 1); j < std::min(n, left + kTile); ++j)
          data[i * stride + j] = data[j * stride + i];
  };
  const int64_t tiles = (n + kTile - 1) / kTile;
  parallel_ranges((tiles + 1) / 2, 1,
                  [&](int64_t begin, int64_t end) {  // a long row of tiles with a short one
                    for (int64_t tile = begin; tile < end; ++tile) {
                      mirror_rows(tile * kTile);
                      if (tiles - 1 - tile > tile) mirror_rows((tiles - 1 - tile) * kTile);
                    }
                  });
}

}  // namespace

SecondMomentSum::SecondMomentSum(int64_t n, const Communicator& group) : sum_(make_block_rows(n, group)) {
  const int rank = group.rank(), size = group.size();
  const int64_t rows = sum_.rows();
  parts_.push_back({0, rows, sum_.offset, rows, true});
  for (int distance = 1; 2 * distance <= size; ++distance) {
    const int other = (rank + distance) % size;
    const auto [begin, end] = even_range(n, other, size);
    if (2 * distance < size) {
      parts_.push_back({0, rows, begin, end - begin, false});
    } else if (rank < other) {
      parts_.push_back({0, rows / 2, begin, end - begin, false});
    } else {
      const int64_t half = (end - begin) / 2;
      parts_.push_back({0, rows, begin + half, end - begin - half, false});
    }
  }
}

bool SecondMomentSum::needs_block(int block) const {
  const int size = sum_.group.size();
  return 2 * ((block - sum_.group.rank() + size) % size) <= size;
}

void SecondMomentSum::add(const at::Tensor& x, ProductScratch& scratch) {
  if (PackedColumns::suit(x))
    add_packed(x, scratch);
  else
    add_by_blas(x, scratch);
}

void SecondMomentSum::add_packed(const at::Tensor& x, ProductScratch& scratch) {
  scratch.mine.pack(x.narrow(1, sum_.offset, sum_.rows()));
  for (const Part& part : parts_) {
    if (!part.triangle) scratch.other.pack(x.narrow(1, part.column, part.columns));
    add_outer_product(sum_.local.narrow(0, part.row, part.rows).narrow(1, part.column, part.columns),
                      scratch.mine, part.triangle ? scratch.mine : scratch.other, part.triangle);
  }
}

void SecondMomentSum::add_by_blas(const at::Tensor& x, ProductScratch& scratch) {
  const at::Tensor mine = x.narrow(1, sum_.offset, sum_.rows());
  for (const Part& part : parts_) {
    for (int64_t row = 0; row < part.rows; row += kPanel) {
      const int64_t rows = std::min(kPanel, part.rows - row);
      const int64_t columns = part.triangle ? row + rows : part.columns;
      if (!scratch.panel.defined() || scratch.panel.numel() < rows * columns)
        scratch.panel = at::empty({kPanel * std::max(columns, part.columns)}, x.options());
      at::Tensor product = scratch.panel.narrow(0, 0, rows * columns).view({rows, columns});
      at::mm_out(product, mine.narrow(1, row, rows).t(), x.narrow(1, part.column, columns));
      sum_.local.narrow(0, part.row + row, rows)
          .narrow(1, part.column, columns)
          .add_(product.to(sum_.local.device()));
    }
  }
}

BlockRows SecondMomentSum::finish(const Communicator& data) {
  if (data.size() > 1) data.all_reduce(sum_.local);
  mirror();
  return std::move(sum_);
}

// Pairs go in one order that all ranks share, so that no two wait for each other.
void SecondMomentSum::mirror() {
  const int rank = sum_.group.rank(), size = sum_.group.size();
  mirror_lower_(columns_of(rank));
  for (int low = 0; low < size; ++low)
    for (int high = low + 1; high < size; ++high)
      if (rank == low || rank == high) exchange(low, high);
}

void SecondMomentSum::exchange(int low, int high) {
  const Communicator& group = sum_.group;
  const int other = group.rank() == low ? high : low;
  const auto send = [&](const at::Tensor& block) { group.send(block.contiguous(), other); };
  const auto receive_transposed = [&](at::Tensor into) {
    at::Tensor block = at::empty({into.size(1), into.size(0)}, into.options());
    group.receive(block, other);
    into.copy_(block.t());
  };

  const int size = group.size(), distance = high - low;
  at::Tensor block = columns_of(other);
  if (2 * distance == size) {
    const auto [begin, end] = even_range(sum_.n, low, size);
    const int64_t half = (end - begin) / 2, rest = end - begin - half;
    if (group.rank() == low) {
      send(block.narrow(0, 0, half));
      receive_transposed(block.narrow(0, half, rest));
    } else {
      receive_transposed(block.narrow(1, 0, half));
      send(block.narrow(1, half, rest));
    }
    return;
  }
  const int owner = 2 * distance < size ? low : high;
  if (group.rank() == owner)
    send(block);
  else
    receive_transposed(block);
}

at::Tensor SecondMomentSum::columns_of(int block) const {
  const auto [begin, end] = even_range(sum_.n, block, sum_.group.size());
  return sum_.local.narrow(1, begin, end - begin);
}

}  // namespace efface
