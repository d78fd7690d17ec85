#include "core/text/ragged_batch.hpp"

#include <string>

#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325ULL;
constexpr uint64_t kFnvPrime = 0x100000001b3ULL;

uint64_t mix(uint64_t hash, int64_t value) {
  auto bits = static_cast<uint64_t>(value);
  for (int byte = 0; byte < 8; ++byte) hash = (hash ^ ((bits >> (8 * byte)) & 0xff)) * kFnvPrime;
  return hash;
}

at::Tensor to_tensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

void check(const TokenRow& row, size_t index) {
  const auto size = static_cast<int64_t>(row.ids.size());
  const std::string name = "row " + std::to_string(index);
  if (size == 0) throw Error(ErrorClass::data, name + " has no tokens");
  if (row.prompt_length < 0 || row.prompt_length > size)
    throw Error(ErrorClass::data, name + ": prompt length " + std::to_string(row.prompt_length) +
                                      " does not fit " + std::to_string(size) + " tokens");
  if (row.prompt_length == 0)
    throw Error(ErrorClass::data, name + " has no prompt token before its first label",
                "start the row with a beginning-of-text token");
}

}  // namespace

uint64_t TokenRow::row_id() const {
  uint64_t hash = mix(kFnvOffset, prompt_length);
  for (int64_t id : ids) hash = mix(hash, id);
  return hash;
}

int64_t token_count(const std::vector<TokenRow>& rows) {
  int64_t tokens = 0;
  for (const TokenRow& row : rows) tokens += static_cast<int64_t>(row.ids.size());
  return tokens;
}

RaggedBatch make_batch(const std::vector<TokenRow>& rows, at::Device device) {
  RaggedBatch batch;
  batch.offsets = {0};
  batch.label_offsets = {0};
  std::vector<int64_t> ids, positions, label_positions, label_ids, label_rows;
  for (size_t r = 0; r < rows.size(); ++r) {
    const TokenRow& row = rows[r];
    check(row, r);
    const int64_t begin = batch.offsets.back();
    const auto size = static_cast<int64_t>(row.ids.size());
    for (int64_t p = 0; p < size; ++p) {
      ids.push_back(row.ids[p]);
      positions.push_back(p);
      if (p < row.prompt_length) continue;
      label_positions.push_back(begin + p - 1);
      label_ids.push_back(row.ids[p]);
      label_rows.push_back(static_cast<int64_t>(r));
    }
    batch.offsets.push_back(begin + size);
    batch.label_offsets.push_back(static_cast<int64_t>(label_ids.size()));
    batch.row_ids.push_back(row.row_id());
  }
  batch.ids = to_tensor(ids, device);
  batch.positions = to_tensor(positions, device);
  batch.label_positions = to_tensor(label_positions, device);
  batch.label_ids = to_tensor(label_ids, device);
  batch.label_rows = to_tensor(label_rows, device);
  return batch;
}

}  // namespace efface
