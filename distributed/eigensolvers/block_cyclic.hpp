// Block rows as ScaLAPACK sees them, without moving a row between ranks. Every rank pads its rows to the same
// number R = blocks x nb; its block k of nb rows is then global block k P + r of a P x 1 block-cyclic matrix:
// the padded matrix under a permutation. Permuting the columns alike is local, since every rank holds whole
// rows.
//
// Padding is a diagonal of its own, below the spectrum, so the extra eigenpairs are the lowest and split off.
#pragma once

#include <ATen/ATen.h>

#include "distributed/block_rows.hpp"

namespace efface {

struct BlockCyclicLayout {
  int64_t n = 0;  ///< of the matrix itself
  int ranks = 1;
  int64_t nb = 1;      ///< rows of a block
  int64_t blocks = 1;  ///< blocks a rank holds

  int64_t rows() const { return blocks * nb; }       ///< R, of each rank
  int64_t padded() const { return rows() * ranks; }  ///< side of the padded matrix
  int64_t padding() const { return padded() - n; }
};

/// Blocks of at most `widest` rows, as equal as possible, so that padding stays below a row a block.
BlockCyclicLayout block_cyclic_layout(int64_t n, int ranks, int64_t widest = 64);

/// This rank's part by columns (as Fortran has it): [padded, R], element [g, l] = padded matrix (row l,
/// column g).
/// @param local rows [rows, n] of even_range(n, rank, ranks)
/// @param pad the padding's diagonal
at::Tensor to_block_cyclic(const at::Tensor& local, const BlockCyclicLayout& layout, int rank, double pad);

}  // namespace efface
