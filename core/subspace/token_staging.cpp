#include "core/subspace/token_staging.hpp"

#include <algorithm>

#include "core/subspace/store_manifest.hpp"

namespace efface {

at::Tensor squared_norms(const ColumnBlocks& blocks) {
  at::Tensor sum;
  for (const at::Tensor& block : blocks) {
    const auto dtype = block.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor part =
        at::linalg_vector_norm(block, 2, at::IntArrayRef{1}, false, dtype).to(at::kDouble).square();
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

void StagedSecondMoment::gather(at::Tensor into, const ColumnBlocks& blocks, const at::Tensor& index) const {
  int64_t column = 0;
  for (size_t s = 0; s < blocks.size(); ++s) {
    const int64_t columns = blocks[s].size(1);
    if (sum_.needs_block(static_cast<int>(s))) {
      at::Tensor part = into.narrow(1, column, columns);
      if (blocks[s].scalar_type() == dtype_)
        at::index_select_out(part, blocks[s], 0, index);
      else
        part.copy_(blocks[s].index_select(0, index));
    }
    column += columns;
  }
}

void StagedSecondMoment::add(const ColumnBlocks& blocks, const at::Tensor& index, const at::Tensor& scale,
                             ProductScratch& scratch) {
  const bool as_it_is = !scale.defined() && index.is_cpu() && PackedColumns::suit(blocks[0].scalar_type());
  dtype_ = as_it_is ? blocks[0].scalar_type() : at::kFloat;
  const auto options = at::TensorOptions().dtype(dtype_).device(index.device());
  const int64_t tokens = index.numel();
  const auto take = [&](at::Tensor into, int64_t from) {
    gather(into, blocks, index.narrow(0, from, into.size(0)));
    if (scale.defined()) into.mul_(scale.narrow(0, from, into.size(0)).unsqueeze(1));
  };
  if (waiting_tokens_ + tokens < kFewestTokens) {
    if (!waiting_.defined()) waiting_ = empty_waiting(index.device());
    take(waiting_.narrow(0, waiting_tokens_, tokens), 0);
    waiting_tokens_ += tokens;
    return;
  }

  if (!scratch.tokens.defined() || scratch.tokens.numel() < kProductTokens * n_)
    scratch.tokens = at::empty({kProductTokens * n_}, options.dtype(at::kFloat));
  const at::Tensor buffer =
      scratch.tokens.view(dtype_).narrow(0, 0, kProductTokens * n_).view({kProductTokens, n_});
  int64_t filled = waiting_tokens_;
  if (filled > 0) buffer.narrow(0, 0, filled).copy_(waiting_.narrow(0, 0, filled));
  waiting_tokens_ = 0;
  for (int64_t done = 0; done < tokens;) {
    const int64_t count = std::min(kProductTokens - filled, tokens - done);
    take(buffer.narrow(0, filled, count), done);
    filled += count;
    done += count;
    if (filled == kProductTokens || (done == tokens && filled >= kFewestTokens)) {
      sum_.add(buffer.narrow(0, 0, filled), scratch);
      filled = 0;
    }
  }
  if (filled == 0) return;
  if (!waiting_.defined()) waiting_ = empty_waiting(index.device());
  waiting_.narrow(0, 0, filled).copy_(buffer.narrow(0, 0, filled));
  waiting_tokens_ = filled;
}

BlockRows StagedSecondMoment::finish(const Communicator& data) {
  if (waiting_tokens_ > 0) {
    ProductScratch scratch;
    sum_.add(waiting_.narrow(0, 0, waiting_tokens_), scratch);
  }
  waiting_.reset();
  waiting_tokens_ = 0;
  return sum_.finish(data);
}

at::Tensor StagedSecondMoment::empty_waiting(at::Device device) const {
  return at::empty({kFewestTokens, n_}, at::TensorOptions().dtype(dtype_).device(device));
}

void StagedSecondMoment::save(StoreFileWriter& file, const std::string& name) const {
  file.write(name + "/sum", sum_.partial());
  const bool as_bf16 = dtype_ == at::kBFloat16;
  file.write(name + "/waiting_tokens", at::tensor({waiting_tokens_, int64_t{as_bf16}}));
  if (waiting_tokens_ > 0) file.write(name + "/waiting", waiting_.narrow(0, 0, waiting_tokens_).cpu());
}

void StagedSecondMoment::restore(const StoreFile& file, const std::string& name, at::Device device) {
  at::Tensor& sum = sum_.partial();
  sum.copy_(file.read(name + "/sum", sum.sizes().vec()));
  const at::Tensor counts = file.read(name + "/waiting_tokens", {2});
  waiting_tokens_ = counts[0].item<int64_t>();
  dtype_ = counts[1].item<int64_t>() != 0 ? at::kBFloat16 : at::kFloat;
  waiting_.reset();
  if (waiting_tokens_ == 0) return;
  waiting_ = empty_waiting(device);
  waiting_.narrow(0, 0, waiting_tokens_).copy_(file.read(name + "/waiting", {waiting_tokens_, n_}));
}

}  // namespace efface
