#include "core/text/ragged_batch.hpp"

#include <gtest/gtest.h>

#include "distributed/error.hpp"

namespace efface {
namespace {

std::vector<int64_t> values(const at::Tensor& tensor) {
  return {tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel()};
}

TEST(RaggedBatchTest, RowsLieEndToEndWithPositionsOfTheirOwn) {
  const RaggedBatch batch = make_batch({{{5, 6, 7}, 1}, {{8, 9}, 2}, {{1, 2, 3, 4}, 3}});
  EXPECT_EQ(values(batch.ids), (std::vector<int64_t>{5, 6, 7, 8, 9, 1, 2, 3, 4}));
  EXPECT_EQ(values(batch.positions), (std::vector<int64_t>{0, 1, 2, 0, 1, 0, 1, 2, 3}));
  EXPECT_EQ(batch.offsets, (std::vector<int64_t>{0, 3, 5, 9}));
  EXPECT_EQ(batch.rows(), 3);
  EXPECT_EQ(batch.tokens(), 9);
}

TEST(RaggedBatchTest, ALabelIsPredictedByTheTokenBeforeIt) {
  const RaggedBatch batch = make_batch({{{5, 6, 7}, 1}, {{8, 9}, 2}, {{1, 2, 3, 4}, 3}});
  EXPECT_EQ(values(batch.label_ids), (std::vector<int64_t>{6, 7, 4}));
  EXPECT_EQ(values(batch.label_positions), (std::vector<int64_t>{0, 1, 7}));
  EXPECT_EQ(values(batch.label_rows), (std::vector<int64_t>{0, 0, 2}));
  EXPECT_EQ(batch.label_offsets, (std::vector<int64_t>{0, 2, 2, 3}));
  EXPECT_EQ(values(batch.ids.index_select(0, batch.label_positions + 1)), values(batch.label_ids));
}

TEST(RaggedBatchTest, NoRowsIsABatchToo) {
  const RaggedBatch batch = make_batch({});
  EXPECT_EQ(batch.rows(), 0);
  EXPECT_EQ(batch.tokens(), 0);
  EXPECT_EQ(batch.labels(), 0);
  EXPECT_EQ(batch.ids.scalar_type(), at::kLong);
  EXPECT_EQ(batch.offsets, std::vector<int64_t>{0});
}

TEST(RaggedBatchTest, RowsThatCannotBeScoredAreRefused) {
  EXPECT_THROW(make_batch({{{}, 0}}), Error);
  EXPECT_THROW(make_batch({{{1, 2}, 0}}), Error);
  EXPECT_THROW(make_batch({{{1, 2}, 3}}), Error);
}

TEST(RaggedBatchTest, RowIdDependsOnIdsTheirOrderAndTheMask) {
  const TokenRow row{{1, 2, 3}, 2};
  EXPECT_EQ(row.row_id(), (TokenRow{{1, 2, 3}, 2}.row_id()));
  EXPECT_NE(row.row_id(), (TokenRow{{1, 2, 3}, 1}.row_id()));
  EXPECT_NE(row.row_id(), (TokenRow{{2, 1, 3}, 2}.row_id()));
  EXPECT_NE(row.row_id(), (TokenRow{{1, 2, 3, 0}, 2}.row_id()));
  EXPECT_EQ(make_batch({row}).row_ids, std::vector<uint64_t>{row.row_id()});
}

}  // namespace
}  // namespace efface
