// Rows of tokens laid end to end, without padding: what every linear layer sees is [tokens, features].
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace efface {

/// One training or scoring row. Labels are ids[prompt_length .. end): the hidden state at position p-1
/// predicts ids[p]. prompt_length = ids.size() for a row without labels, and at least 1 for one with.
struct TokenRow {
  std::vector<int64_t> ids;
  int64_t prompt_length = 0;

  int64_t labels() const { return static_cast<int64_t>(ids.size()) - prompt_length; }
  /// Hash of ids and mask: the key under which what a frozen model says about this row is cached.
  uint64_t row_id() const;
};

struct RaggedBatch {
  at::Tensor ids;                      ///< [tokens] int64
  at::Tensor positions;                ///< [tokens] int64, position inside its row
  std::vector<int64_t> offsets;        ///< [rows + 1]; row r is tokens [offsets[r], offsets[r + 1])
  at::Tensor label_positions;          ///< [labels] int64: the hidden state at this token ...
  at::Tensor label_ids;                ///< [labels] int64: ... predicts this id
  at::Tensor label_rows;               ///< [labels] int64: the row it belongs to
  std::vector<int64_t> label_offsets;  ///< [rows + 1]; row r's labels begin at label_offsets[r]
  std::vector<uint64_t> row_ids;       ///< [rows] TokenRow::row_id

  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t labels() const { return label_offsets.empty() ? 0 : label_offsets.back(); }
};

/// Tokens of all rows together.
int64_t token_count(const std::vector<TokenRow>& rows);

/// No rows is a batch too: all tensors empty, offsets {0}. Empty rows throw Error(data).
RaggedBatch make_batch(const std::vector<TokenRow>& rows, at::Device device = at::kCPU);

}  // namespace efface
