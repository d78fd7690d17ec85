// Whole matrices, W = W0 + dW. Each data rank owns a block of every matrix's (local) rows: it alone sums
// their gradients, runs Adam on them and projects the step's increment; then all ranks gather the new
// weights. The master is dW: increments far smaller than W0's rounding are not lost.
#include <cmath>

#include "core/unlearn/parameters.hpp"
#include "distributed/error.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

class MatrixParameters : public Parameters {
 public:
  MatrixParameters(Transformer& model, const std::vector<ModuleId>& modules, const Projectors& projectors,
                   ProjectionPoint point, double initial_noise, uint64_t seed);

  void publish() override;
  void zero_gradients() override;
  bool gradients_are_finite() const override;
  at::Tensor reduced_gradient() override;
  double norm(const at::Tensor& flat) const override;
  void update(const at::Tensor& direction, double learning_rate, double weight_decay) override;
  void check_replicas() const override;
  at::Tensor published(const ParameterPiece& piece) const override { return gather(piece, values_); }

 private:
  struct Matrix {
    at::Tensor leaf;         // [rows, columns]: this tensor rank's part of W, what the model computes with
    int64_t block_rows = 0;  // rows a data rank owns, padded to the same number everywhere
    int64_t offset = 0;      // of the block in the flat vector
    const Projector* projector = nullptr;
    bool input_is_sharded = false;

    int64_t begin(int data_rank) const { return std::min(leaf.size(0), data_rank * block_rows); }
    int64_t rows(int data_rank) const { return begin(data_rank + 1) - begin(data_rank); }
  };

  void add_matrix(Transformer& model, const ModuleId& module);
  void add_noise(double initial_noise, uint64_t seed);
  at::Tensor gathered() const;
  /// In place, a vector laid out like the values.
  void project(const at::Tensor& flat) const;

  Projectors projectors_;
  ProjectionPoint point_;
  std::vector<Matrix> matrices_;
  int64_t size_ = 0;
  at::Tensor base_;  // [n]: W0's rows
};

/// A data rank's block of one matrix in `all`, [data_size, n].
at::Tensor block_of(const at::Tensor& all, int data_rank, int64_t offset, int64_t rows, int64_t columns) {
  return all[data_rank].narrow(0, offset, rows * columns).view({rows, columns});
}

MatrixParameters::MatrixParameters(Transformer& model, const std::vector<ModuleId>& modules,
                                   const Projectors& projectors, ProjectionPoint point, double initial_noise,
                                   uint64_t seed)
    : Parameters(model.mesh()), projectors_(projectors), point_(point) {
  for (const ModuleId& module : modules) add_matrix(model, module);
  const at::NoGradGuard no_grad;
  const auto options = matrices_.front().leaf.options().requires_grad(false);
  base_ = at::zeros({size_}, options);
  values_ = at::zeros({size_}, options);
  for (size_t i = 0; i < matrices_.size(); ++i)
    pieces_[i].view(base_).copy_(
        matrices_[i].leaf.detach().narrow(0, matrices_[i].begin(mesh_.data_rank()), pieces_[i].rows));
  if (initial_noise != 0) add_noise(initial_noise, seed);
  publish();
}

void MatrixParameters::add_matrix(Transformer& model, const ModuleId& module) {
  const Weight weight = model.weight(module);
  const bool row_parallel = is_row_parallel(module.projection);
  Matrix matrix;
  matrix.leaf = model.make_trainable(module);
  const int64_t local_rows = matrix.leaf.size(0), columns = matrix.leaf.size(1);
  matrix.block_rows = (local_rows + mesh_.data_size() - 1) / mesh_.data_size();
  matrix.offset = size_;
  matrix.input_is_sharded = row_parallel;
  const auto found = projectors_.find(input_of(module));
  if (found != projectors_.end() && !found->second.is_identity()) matrix.projector = &found->second;

  ParameterPiece piece;
  piece.name = module_name(module) + ".update";
  piece.module = module;
  piece.offset = size_;
  piece.rows = matrix.rows(mesh_.data_rank());
  piece.columns = columns;
  piece.global_rows = weight.global_shape[0];
  piece.global_columns = weight.global_shape[1];
  piece.row_begin = matrix.begin(mesh_.data_rank()) + (row_parallel ? 0 : weight.begin);
  piece.column_begin = row_parallel ? weight.begin : 0;
  piece.primary = weight.primary;
  size_ += matrix.block_rows * columns;
  pieces_.push_back(piece);
  matrices_.push_back(std::move(matrix));
}

void MatrixParameters::add_noise(double initial_noise, uint64_t seed) {
  for (const ParameterPiece& piece : pieces_)
    if (piece.rows > 0)
      piece.view(values_).copy_(philox_normal({seed, "initial_noise", piece.name}, piece.rows, piece.columns,
                                              piece.row_begin, piece.column_begin, piece.global_columns));
  if (point_ != ProjectionPoint::none) project(values_);
  auto squares = at::zeros({2, static_cast<int64_t>(pieces_.size())}, at::kDouble);
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const auto column = static_cast<int64_t>(i);
    if (!pieces_[i].primary) continue;
    squares[0][column] = pieces_[i].view(values_).to(at::kDouble).square().sum().to(at::kCPU);
    squares[1][column] = pieces_[i].view(base_).to(at::kDouble).square().sum().to(at::kCPU);
  }
  mesh_.world.all_reduce(squares);
  const auto norms = squares.sqrt();
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const auto column = static_cast<int64_t>(i);
    const double noise = norms[0][column].item<double>(), weight = norms[1][column].item<double>();
    pieces_[i].view(values_).mul_(initial_noise * weight / noise);
  }
}

at::Tensor MatrixParameters::gathered() const {
  return mesh_.data.all_gather((base_ + values_).unsqueeze(0));
}

void MatrixParameters::publish() {
  const at::NoGradGuard no_grad;
  const auto all = gathered();
  for (const Matrix& matrix : matrices_)
    for (int rank = 0; rank < mesh_.data_size(); ++rank)
      matrix.leaf.detach()
          .narrow(0, matrix.begin(rank), matrix.rows(rank))
          .copy_(block_of(all, rank, matrix.offset, matrix.rows(rank), matrix.leaf.size(1)));
}

void MatrixParameters::zero_gradients() {
  for (Matrix& matrix : matrices_) matrix.leaf.mutable_grad().reset();
}

bool MatrixParameters::gradients_are_finite() const {
  for (const Matrix& matrix : matrices_)
    if (matrix.leaf.grad().defined() && !std::isfinite(matrix.leaf.grad().sum().item<double>())) return false;
  return true;
}

at::Tensor MatrixParameters::reduced_gradient() {
  const at::NoGradGuard no_grad;
  const auto all = at::zeros({mesh_.data_size(), size_}, values_.options());
  for (const Matrix& matrix : matrices_) {
    if (!matrix.leaf.grad().defined()) continue;  // a rank without rows
    for (int rank = 0; rank < mesh_.data_size(); ++rank)
      block_of(all, rank, matrix.offset, matrix.rows(rank), matrix.leaf.size(1))
          .copy_(matrix.leaf.grad().narrow(0, matrix.begin(rank), matrix.rows(rank)));
  }
  const auto gradient = mesh_.data.reduce_scatter(all).view({size_});
  if (point_ == ProjectionPoint::gradient) project(gradient);
  return gradient;
}

double MatrixParameters::norm(const at::Tensor& flat) const {
  double squares = 0;
  for (const ParameterPiece& piece : pieces_)
    if (piece.primary) squares += piece.view(flat).to(at::kDouble).square().sum().item<double>();
  return std::sqrt(mesh_.world.all_reduce(squares));
}

void MatrixParameters::update(const at::Tensor& direction, double learning_rate, double weight_decay) {
  const at::NoGradGuard no_grad;
  auto increment = direction * -learning_rate;
  if (weight_decay != 0) increment.add_(values_, -learning_rate * weight_decay);
  // The increment, not dW: a relaxed P is not idempotent.
  if (point_ == ProjectionPoint::update) project(increment);
  values_.add_(increment);
}

void MatrixParameters::project(const at::Tensor& flat) const {
  for (const Matrix& matrix : matrices_) {
    if (!matrix.projector) continue;
    const int64_t columns = matrix.leaf.size(1);
    // Padding rows go along as zeros: every rank of the tensor group sends the same size.
    const auto block =
        flat.narrow(0, matrix.offset, matrix.block_rows * columns).view({matrix.block_rows, columns});
    block.copy_(matrix.input_is_sharded ? matrix.projector->apply(block)
                                        : matrix.projector->apply_to_sharded_rows(block));
  }
}

void MatrixParameters::check_replicas() const {
  for (const Matrix& matrix : matrices_) check_same_bits(matrix.leaf.detach(), mesh_.data, "trained weights");
}

}  // namespace

std::unique_ptr<Parameters> make_matrix_parameters(Transformer& model, const std::vector<ModuleId>& modules,
                                                   const Projectors& projectors, ProjectionPoint point,
                                                   double initial_noise, uint64_t seed) {
  return std::make_unique<MatrixParameters>(model, modules, projectors, point, initial_noise, seed);
}

}  // namespace efface
