// From a covariance to a projector on the input side of a linear layer, W <- W + D P.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/model/module.hpp"
#include "distributed/mesh.hpp"

namespace efface {

/// How many leading eigenvectors the retained knowledge keeps (docs/methods.md, "the retain subspace").
struct RankRule {
  enum class Kind { energy, threshold, relative, k } kind = Kind::energy;
  double value = 0.95;
};
/// `values` [n] descending. Throws Error(numeric) naming `module` with the spectrum's summary when nothing is
/// left to train in (k = n) or (nearly) nothing is protected (k = 0).
int64_t choose_rank(const at::Tensor& values, const RankRule& rule, const std::string& module);

enum class ProjectorKind { none, hard, leak, sgp, ridge };

struct ProjectorOptions {
  ProjectorKind kind = ProjectorKind::hard;
  double leak = 0.01;           ///< leak: w_i = 1 - leak for i <= k
  double sgp_scale = 10;        ///< sgp: a in w_i = min(1, (a+1) l_i / (a l_i + l_ref)), l_ref = mean eigenvalue
  double ridge_shift = 0;       ///< ridge: tau in w_i = l_i / (l_i + tau); 0: the mean eigenvalue
  bool protect_sink = false;    ///< the mean sink input, orthogonalised against U_k, is one more retained direction
};

/// What a basis file holds, global. Vectors are columns; weights w_i in [0, 1]; P = I - V diag(w) V^T, or, when
/// `complement` (hard only, k > n/2), P = V V^T with V the null basis.
struct Basis {
  InputId id;
  int64_t n = 0;
  int64_t k = 0;                ///< rank of the retain subspace by the rule
  bool complement = false;
  at::Tensor vectors;           ///< [n, m] fp32
  at::Tensor weights;           ///< [m] fp32; all ones for hard
  at::Tensor eigenvalues;       ///< [n] fp64, descending, the whole spectrum
};
Basis make_basis(const InputId& id, const at::Tensor& values, const at::Tensor& vectors, int64_t k,
                 const ProjectorOptions& options, const at::Tensor& sink_mean = {});

/// P, sharded as its layer is. Replicated input: each tensor rank holds columns of V and every input feature.
/// Sharded input: each rank holds rows of V, those of its input features. Never formed densely.
class Projector {
 public:
  Projector() = default;  ///< the identity
  /// Takes this rank's slice of the global basis.
  Projector(const Basis& basis, const Mesh& mesh, at::ScalarType dtype = at::kFloat);
  bool is_identity() const { return !vectors_.defined(); }

  /// D P for D [rows, n or n / t]. Replicated input: D is the same on every tensor rank (LoRA's A);
  /// sharded input: D is this rank's columns. Differentiable, the adjoint right on every mesh. Collective.
  at::Tensor apply(const at::Tensor& d) const;
  /// D P for a column-parallel weight's D [out / t, n], which differs by tensor rank: V's columns are gathered
  /// for the call. Same as apply() for sharded inputs. Not differentiable. Collective.
  at::Tensor apply_to_sharded_rows(const at::Tensor& d) const;

 private:
  at::Tensor vectors_, weights_;
  bool sharded_input_ = false, complement_ = false;
  Communicator tensor_;
};

/// What one module's update does to the tokens of a second moment, from second moments alone:
/// ||dW X||_F^2 = N tr(dW C dW^T).
struct Leak {
  double of_update = 0;   ///< ||dW X|| / (||dW|| ||X||)
  double of_output = 0;   ///< ||dW X|| / ||W0 X||
  double bound = 0;       ///< sqrt(lambda_{k+1} / tr C): of_update is below it for a hard projector
};
/// `dw`, `w0` global [out, n]; `c` [n, n] of the tokens in question.
Leak measure_leak(const at::Tensor& dw, const at::Tensor& w0, const at::Tensor& c, double lambda_next);

}  // namespace efface
