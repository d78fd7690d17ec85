// What trains, as one flat vector on this rank, and how it reaches the model. Two kinds: LoRA adapters
// (lora_parameters.cpp) and whole matrices (matrix_parameters.cpp).
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/subspace/projector.hpp"
#include "core/unlearn/trainer.hpp"

namespace efface {

/// One tensor's part in the flat vector: rows [row_begin, row_begin + rows) x columns [column_begin,
/// column_begin + columns) of a global matrix.
struct ParameterPiece {
  std::string name;  ///< "model.layers.0.self_attn.q_proj.lora_a"
  ModuleId module;
  int64_t offset = 0, rows = 0, columns = 0;
  int64_t row_begin = 0, column_begin = 0, global_rows = 0, global_columns = 0;
  /// Where several ranks hold the same part, the one whose copy is written to disk and gathered.
  bool primary = true;

  at::Tensor view(const at::Tensor& flat) const {
    return flat.narrow(0, offset, rows * columns).view({rows, columns});
  }
};

class Parameters {
 public:
  virtual ~Parameters() = default;

  /// The masters [n], fp32 (fp64 for an fp64 model): A and B; or this data rank's rows of dW.
  const at::Tensor& values() const { return values_; }
  const std::vector<ParameterPiece>& pieces() const { return pieces_; }

  /// Makes the model compute with the values as they are now: forms A~ = A P; or gathers W0 + dW. Collective.
  virtual void publish() = 0;
  virtual void zero_gradients() = 0;
  /// Whether what backward left on this rank is free of NaN and Inf.
  virtual bool gradients_are_finite() const = 0;
  /// The global gradient of `values`, [n], summed over tensor and data ranks. Collective.
  virtual at::Tensor reduced_gradient() = 0;
  /// ||.||_2 of a vector laid out like `values`, each global element counted once. Collective.
  virtual double norm(const at::Tensor& flat) const = 0;
  /// values <- values - lr * direction, weight decay on dW and the projection included. publish() is the
  /// caller's. Collective.
  virtual void update(const at::Tensor& direction, double learning_rate, double weight_decay) = 0;
  /// Throws Error(communication) when what should be the same bits on several ranks is not. Collective.
  virtual void check_replicas() const = 0;

  /// What the model multiplies with, global, on every rank: the adapters, "<module>.lora_a" being A~; or dW,
  /// "<module>.update". Collective.
  virtual at::Tensor published(const ParameterPiece& piece) const = 0;
  /// A vector laid out like `values`: the piece's global matrix on every rank. Collective.
  at::Tensor gather(const ParameterPiece& piece, const at::Tensor& flat) const;
  const ParameterPiece& piece(const std::string& name) const;
  /// Puts a global matrix, the same on every rank, into the values.
  void set(const ParameterPiece& piece, const at::Tensor& global);

 protected:
  explicit Parameters(const Mesh& mesh) : mesh_(mesh) {}

  Mesh mesh_;
  at::Tensor values_;
  std::vector<ParameterPiece> pieces_;
};

using Projectors = std::map<InputId, Projector>;

std::unique_ptr<Parameters> make_lora_parameters(Transformer& model, const std::vector<ModuleId>& modules,
                                                 const Projectors& projectors, ProjectionPoint point,
                                                 const LoraOptions& options, uint64_t seed);
/// dW starts as seeded noise of `initial_noise` ||W0||, projected, or 0.
std::unique_ptr<Parameters> make_matrix_parameters(Transformer& model, const std::vector<ModuleId>& modules,
                                                   const Projectors& projectors, ProjectionPoint point,
                                                   double initial_noise, uint64_t seed);

/// Throws Error(communication) naming `what` unless `tensor` has the same bits on all ranks of the group.
void check_same_bits(const at::Tensor& tensor, const Communicator& group, const std::string& what);

}  // namespace efface
