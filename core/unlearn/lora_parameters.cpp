// Adapters y += s (x A~^T) B^T with A~ = A P. P is symmetric, so the gradient of A is the gradient of A~
// times P: both products are formed once a step, outside the graph, however many passes a step takes.
//
// The flat vector starts with what is replicated on the tensor group (A of column-parallel modules, B of
// row-parallel ones), whose gradients are partial sums there; what is sharded follows. So the tensor group
// sums one slice and the data group the whole, each in one collective.
#include <algorithm>
#include <cmath>

#include "core/unlearn/parameters.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

class LoraParameters : public Parameters {
 public:
  LoraParameters(Transformer& model, const std::vector<ModuleId>& modules, const Projectors& projectors,
                 ProjectionPoint point, const LoraOptions& options, uint64_t seed);

  void publish() override;
  void zero_gradients() override { gradient_.zero_(); }
  bool gradients_are_finite() const override { return std::isfinite(gradient_.sum().item<double>()); }
  at::Tensor reduced_gradient() override;
  double norm(const at::Tensor& flat) const override;
  void update(const at::Tensor& direction, double learning_rate, double weight_decay) override;
  void check_replicas() const override;
  at::Tensor published(const ParameterPiece& piece) const override { return gather(piece, published_); }

 private:
  /// Neighbouring A that read one input (q, k, v; gate, up), projected as one matrix [sum of r, in].
  struct ProjectedBlock {
    int64_t offset, rows, columns;
    InputId input;
    const Projector* projector;
  };

  void lay_out(const Transformer& model, const std::vector<ModuleId>& modules, int64_t r);
  void add_piece(const Transformer& model, const ModuleId& module, bool is_a, int64_t r);
  void find_projected_blocks();
  /// target's A <- source's A times P; the rest of target is left alone. The two may be one.
  void project(const at::Tensor& source, at::Tensor target) const;
  at::Tensor leaf(const ParameterPiece& piece) const;
  static bool is_a(const ParameterPiece& piece) { return piece.name.ends_with(".lora_a"); }

  Projectors projectors_;
  ProjectionPoint point_;
  std::vector<ProjectedBlock> blocks_;
  int64_t size_ = 0, replicated_ = 0;
  std::vector<std::pair<int64_t, int64_t>> duplicates_;  // offset, size: parts that another rank counts
  at::Tensor published_, gradient_;                      // [n]: the leaves and their .grad are views
};

LoraParameters::LoraParameters(Transformer& model, const std::vector<ModuleId>& modules,
                               const Projectors& projectors, ProjectionPoint point,
                               const LoraOptions& options, uint64_t seed)
    : Parameters(model.mesh()), projectors_(projectors), point_(point) {
  lay_out(model, modules, options.r);
  find_projected_blocks();
  const auto dtype = model.dtype() == at::kDouble ? at::kDouble : at::kFloat;
  values_ = at::zeros({size_}, at::TensorOptions(dtype).device(mesh_.device));
  published_ = at::zeros_like(values_);
  gradient_ = at::zeros_like(values_);

  std::map<ModuleId, LoraAdapter> adapters;
  for (const ParameterPiece& piece : pieces_) {
    LoraAdapter& adapter = adapters[piece.module];
    adapter.scale = options.lora_alpha / static_cast<double>(options.r);
    (is_a(piece) ? adapter.a : adapter.b) = leaf(piece);
    if (!is_a(piece)) continue;
    // As PEFT: uniform in +-1/sqrt(in); B starts at zero.
    const auto u = philox_uniform({seed, "lora_a", piece.name}, piece.rows, piece.columns, piece.row_begin,
                                  piece.column_begin, piece.global_columns);
    piece.view(values_).copy_((u * 2 - 1) / std::sqrt(static_cast<double>(piece.global_columns)));
  }
  for (auto& [module, adapter] : adapters) model.set_adapter(module, adapter);
  publish();
}

void LoraParameters::lay_out(const Transformer& model, const std::vector<ModuleId>& modules, int64_t r) {
  const auto add = [&](bool row_parallel, bool is_a) {
    for (const ModuleId& module : modules)
      if (is_row_parallel(module.projection) == row_parallel) add_piece(model, module, is_a, r);
  };
  add(/*row_parallel=*/false, /*is_a=*/true);
  add(/*row_parallel=*/true, /*is_a=*/false);
  replicated_ = size_;
  add(/*row_parallel=*/true, /*is_a=*/true);
  add(/*row_parallel=*/false, /*is_a=*/false);
}

void LoraParameters::add_piece(const Transformer& model, const ModuleId& module, bool is_a, int64_t r) {
  const Weight weight = model.weight(module);
  const bool sharded = is_row_parallel(module.projection) == is_a;
  const int64_t global = weight.global_shape[is_a ? 1 : 0], local = weight.local.size(is_a ? 1 : 0);
  ParameterPiece piece;
  piece.name = module_name(module) + (is_a ? ".lora_a" : ".lora_b");
  piece.module = module;
  piece.offset = size_;
  piece.rows = is_a ? r : local;
  piece.columns = is_a ? local : r;
  piece.global_rows = is_a ? r : global;
  piece.global_columns = is_a ? global : r;
  (is_a ? piece.column_begin : piece.row_begin) = sharded ? weight.begin : 0;
  piece.primary = mesh_.data_rank() == 0 && (sharded ? weight.primary : mesh_.tensor_rank() == 0);
  if (sharded && !weight.primary) duplicates_.push_back({size_, piece.rows * piece.columns});
  size_ += piece.rows * piece.columns;
  pieces_.push_back(piece);
}

void LoraParameters::find_projected_blocks() {
  if (point_ == ProjectionPoint::none) return;
  for (const ParameterPiece& piece : pieces_) {
    if (!is_a(piece)) continue;
    const InputId input = input_of(piece.module);
    const auto found = projectors_.find(input);
    if (found == projectors_.end() || found->second.is_identity()) continue;
    if (!blocks_.empty() && blocks_.back().input == input &&
        blocks_.back().offset + blocks_.back().rows * piece.columns == piece.offset)
      blocks_.back().rows += piece.rows;
    else
      blocks_.push_back({piece.offset, piece.rows, piece.columns, input, &found->second});
  }
}

void LoraParameters::project(const at::Tensor& source, at::Tensor target) const {
  if (blocks_.empty()) return;
  const auto view = [](const at::Tensor& flat, const ProjectedBlock& block) {
    return flat.narrow(0, block.offset, block.rows * block.columns).view({block.rows, block.columns});
  };
  std::vector<const Projector*> projectors;
  std::vector<at::Tensor> matrices;
  for (const ProjectedBlock& block : blocks_) {
    projectors.push_back(block.projector);
    matrices.push_back(view(source, block));
  }
  const auto projected = Projector::apply_all(projectors, matrices);
  for (size_t i = 0; i < blocks_.size(); ++i) view(target, blocks_[i]).copy_(projected[i]);
}

at::Tensor LoraParameters::leaf(const ParameterPiece& piece) const {
  auto leaf = piece.view(published_).detach().requires_grad_();
  leaf.mutable_grad() = piece.view(gradient_);
  return leaf;
}

void LoraParameters::publish() {
  const at::NoGradGuard no_grad;
  published_.copy_(values_);
  if (point_ == ProjectionPoint::update) project(values_, published_);
}

at::Tensor LoraParameters::reduced_gradient() {
  const at::NoGradGuard no_grad;
  if (replicated_ > 0) mesh_.tensor.all_reduce(gradient_.narrow(0, 0, replicated_));
  mesh_.data.all_reduce(gradient_);
  project(gradient_, gradient_);
  return gradient_;
}

double LoraParameters::norm(const at::Tensor& flat) const {
  const auto square = [](const at::Tensor& part) {
    const double norm = at::linalg_vector_norm(part, 2, {}, false, at::kDouble).item<double>();
    return norm * norm;
  };
  double mine = square(flat.slice(0, replicated_));
  for (const auto& [offset, size] : duplicates_) mine -= square(flat.narrow(0, offset, size));
  const double sharded = mesh_.tensor.all_reduce(std::max(0.0, mine));
  return std::sqrt(square(flat.slice(0, 0, replicated_)) + sharded);
}

void LoraParameters::update(const at::Tensor& direction, double learning_rate, double weight_decay) {
  const at::NoGradGuard no_grad;
  // dW = s B A~, so decaying B decays dW by just that factor, and what is left is still projected.
  if (weight_decay != 0)
    for (const ParameterPiece& piece : pieces_)
      if (!is_a(piece)) piece.view(values_).mul_(1 - learning_rate * weight_decay);
  values_.add_(direction, -learning_rate);
}

void LoraParameters::check_replicas() const {
  check_same_bits(values_.slice(0, 0, replicated_), mesh_.tensor, "replicated adapter factors");
  check_same_bits(values_, mesh_.data, "adapters");
}

}  // namespace

std::unique_ptr<Parameters> make_lora_parameters(Transformer& model, const std::vector<ModuleId>& modules,
                                                 const Projectors& projectors, ProjectionPoint point,
                                                 const LoraOptions& options, uint64_t seed) {
  return std::make_unique<LoraParameters>(model, modules, projectors, point, options, seed);
}

}  // namespace efface
