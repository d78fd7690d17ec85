#include "core/unlearn/window_pass.hpp"

namespace efface {

WindowPass::WindowPass(const Transformer& model, const StepBatch& batch, const ReferenceCache& reference,
                       LayerWindow window)
    : window_(window) {
  std::vector<TokenRow> tokens;
  for (const TrainingRow& row : batch.rows) {
    rows_[row.role].push_back({static_cast<int64_t>(tokens.size()),
                               static_cast<int64_t>(row.tokens.ids.size()) - row.represented_tokens()});
    tokens.push_back(row.tokens);
  }
  batch_ = make_batch(tokens, model.mesh().device);
  std::vector<at::Tensor> below;
  for (uint64_t id : batch_.row_ids) below.push_back(reference.below_window(id, window.begin));
  output_ = model.run_layers(at::cat(below).to(model.mesh().device), batch_, window.begin, window.end);
}

at::Tensor WindowPass::output(RowRole role) const {
  const auto found = rows_.find(role);
  if (found == rows_.end()) return {};
  std::vector<at::Tensor> parts;
  for (const auto& [row, first] : found->second)
    parts.push_back(output_.slice(0, batch_.offsets[row] + first, batch_.offsets[row + 1]));
  const auto output = at::cat(parts);
  return output.size(0) > 0 ? output : at::Tensor();
}

at::Tensor WindowPass::reference_output(RowRole role, const ReferenceCache& reference) const {
  const auto found = rows_.find(role);
  if (found == rows_.end()) return {};
  std::vector<at::Tensor> parts;
  for (const auto& [row, first] : found->second)
    parts.push_back(reference.representation(batch_.row_ids[row], window_.end).slice(0, first));
  return at::cat(parts).to(output_.options().requires_grad(false));
}

ReferenceNeeds window_needs(LayerWindow window, bool representation) {
  ReferenceNeeds needs;
  needs.below_window = true;
  needs.representation = representation;
  needs.window_begin = window.begin;
  needs.window_end = window.end;
  return needs;
}

void compute_window_in_fp32(Transformer& model, LayerWindow window) {
  if (model.dtype() != at::kDouble) model.set_layer_dtype(window.begin, window.end, at::kFloat);
}

at::Tensor representation_error(const at::Tensor& h, const at::Tensor& h0) {
  return (h - h0).square().mean(-1);
}

}  // namespace efface
