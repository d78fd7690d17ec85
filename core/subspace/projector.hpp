// From a covariance to a projector on the input side of a linear layer, W <- W + D P.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "core/model/module.hpp"
#include "distributed/block_rows.hpp"
#include "distributed/mesh.hpp"

namespace efface {

/// How many leading eigenvectors the retained knowledge keeps (docs/methods.md, "the retain subspace").
struct RankRule {
  enum class Kind { energy, threshold, relative, heldout, k } kind = Kind::energy;
  double value = 0.95;
};
/// `values` [n] descending. heldout_energy [n], which the heldout rule reads: v_i^T C_h v_i of the held-out
/// second moment, in the order of `values`. Throws Error(numeric) naming `module` with the spectrum's summary
/// when nothing is left to train in (k = n) or (nearly) nothing is protected (k = 0).
int64_t choose_rank(const at::Tensor& values, const RankRule& rule, const std::string& module,
                    const at::Tensor& heldout_energy = {});

/// Throws Error(numeric) naming `module` unless `energy`, its lambda_1 or trace, is positive and finite.
void require_energy(double energy, const std::string& module);

/// Why a retain subspace of an input n wide is not to be trusted, one sentence each; empty when nothing is
/// wrong: lambda_1 holds over 90% of the trace (first_share), k <= 2, or under 20 counted tokens per input
/// dimension.
std::vector<std::string> subspace_warnings(double first_share, int64_t n, int64_t k, int64_t tokens);

enum class ProjectorKind { none, hard, leak, sgp, ridge };

struct ProjectorOptions {
  ProjectorKind kind = ProjectorKind::hard;
  double leak = 0.01;      ///< leak: w_i = 1 - leak for i <= k
  double sgp_scale = 10;   ///< sgp: a in w_i = min(1, (a+1) l_i / (a l_i + l_ref)), l_ref = mean eigenvalue
  double ridge_shift = 0;  ///< ridge: tau in w_i = l_i / (l_i + tau); 0: the mean eigenvalue
  /// The mean sink input, orthogonalised against U_k, is one more retained direction (hard and leak; sgp and
  /// ridge weigh every direction already and refuse it).
  bool protect_sink = false;
};

/// What a basis file holds, global. Vectors are columns; weights w_i in [0, 1]; P = I - V diag(w) V^T, or,
/// when `complement`, P = V V^T with V the null basis (hard, k > n/2) or a Cholesky factor (ridge).
struct Basis {
  InputId id;
  int64_t n = 0;
  int64_t k = 0;  ///< rank of the retain subspace by the rule
  bool complement = false;
  at::Tensor vectors;      ///< [n, m] fp32; undefined: no projection (P = I)
  at::Tensor weights;      ///< [m] fp32; all ones for hard
  at::Tensor eigenvalues;  ///< [n] fp64, descending, the whole spectrum; [0] where none was computed
};
/// The eigenvectors make_basis() reads, [begin, end) in the order of descending values.
std::pair<int64_t, int64_t> basis_vectors(const ProjectorOptions& options, int64_t n, int64_t k);
/// `values` [n] descending, 0 <= k <= n; `vectors` fp32 or fp64: all of them, [n, n], column i belongs to
/// values[i], or those of basis_vectors() alone. `sink_mean` [n] is read when options.protect_sink; an
/// undefined one protects nothing.
Basis make_basis(const InputId& id, const at::Tensor& values, const at::Tensor& vectors, int64_t k,
                 const ProjectorOptions& options, const at::Tensor& sink_mean = {});

/// tau of the ridge projector: options.ridge_shift, or the mean eigenvalue of a matrix n wide with that
/// trace.
double ridge_shift(const ProjectorOptions& options, double trace, int64_t n);
/// The ridge projector of `factor` [n, n] (solve_ridge()): P = V V^T. k is the effective dimension of what is
/// kept, tr(I - P) rounded; there is no spectrum.
Basis make_ridge_basis(const InputId& id, const at::Tensor& factor);

/// The part of V [n, m] that tensor rank `rank` of `size` holds: rows of it for a sharded input, columns for
/// a replicated one, even_range() of n or m. [begin, end).
std::pair<int64_t, int64_t> basis_slice(const Basis& basis, int rank, int size);

/// P, sharded as its layer is. Replicated input: each tensor rank holds columns of V and every input feature.
/// Sharded input: each rank holds rows of V, those of its input features. Never formed densely.
///
/// The adjoint. Autograd on a rank gives that rank's *share* of a gradient; the trainer sums the shares of
/// replicated parameters over the tensor group.
///  - Replicated input: A~ = A - S, S = sum_r (A V_r) w_r V_r^T all-reduced. Each rank feeds A~ to its own
///  rows
///    of the layer, so the gradient dA~_r that comes back is a share. S hangs on every rank's V_r, hence its
///    gradient is all-reduced too: dA_r = dA~_r - (sum_s dA~_s) V_r w_r V_r^T, and the trainer's sum over r
///    is (sum_s dA~_s) P. An identity backward would project each share with its own V_r only, which is
///    wrong.
///  - Sharded input: A~_r = A_r - T w V_r^T, T = sum_s A_s V_s all-reduced, and every rank uses T
///  differently:
///    dA_r = dA~_r - (sum_s dA~_s V_s) w V_r^T, already complete for this rank's columns.
/// Both are all_reduce_sum() of distributed/collectives.hpp.
class Projector {
 public:
  Projector() = default;  ///< the identity
  /// Takes this rank's slice of the global basis.
  Projector(const Basis& basis, const Mesh& mesh, at::ScalarType dtype = at::kFloat);
  /// `slice`: a basis whose `vectors` (and, for a replicated input, `weights`) are this rank's part already,
  /// as BasisStore::read_slice() gives it. `n` stays global.
  static Projector from_slice(const Basis& slice, const Mesh& mesh, at::ScalarType dtype = at::kFloat);
  bool is_identity() const { return !vectors_.defined(); }

  /// D P for D [rows, n or n / t]. Replicated input: D is the same on every tensor rank (LoRA's A);
  /// sharded input: D is this rank's columns. Differentiable, the adjoint right on every mesh. Collective.
  /// Two products on a mesh of one. Computed in the projector's dtype, returned in D's.
  at::Tensor apply(const at::Tensor& d) const;
  /// apply() of projectors[i] to d[i] for all i with one flat all-reduce forward and one backward: a step's
  /// modules together. All must be of one mesh and dtype. Collective.
  static std::vector<at::Tensor> apply_all(const std::vector<const Projector*>& projectors,
                                           const std::vector<at::Tensor>& d);
  /// D P for a column-parallel weight's D [out / t, n], which differs by tensor rank: V's columns are
  /// gathered for the call. Same as apply() for sharded inputs. Not differentiable. Collective.
  at::Tensor apply_to_sharded_rows(const at::Tensor& d) const;

 private:
  at::Tensor partial(const at::Tensor& d) const;
  at::Tensor complete(const at::Tensor& d, const at::Tensor& sum) const;

  at::Tensor vectors_;  // [n, m_r] or [n_r, m]
  at::Tensor weights_;  // [m_r] or [m]
  at::Tensor scaled_;   // vectors_ * weights_; vectors_ itself where all weights are one
  bool sharded_input_ = false, complement_ = false;
  Communicator tensor_;
};

/// What one module's update does to the tokens of a second moment, from second moments alone:
/// ||dW X||_F^2 = N tr(dW C dW^T).
struct Leak {
  double of_update = 0;  ///< ||dW X|| / (||dW|| ||X||)
  double of_output = 0;  ///< ||dW X|| / ||W0 X||
  double bound = 0;      ///< sqrt(lambda_{k+1} / tr C): of_update is below it for a hard projector
};
/// `dw`, `w0` global [out, n]; `c` [n, n] of the tokens in question.
Leak measure_leak(const at::Tensor& dw, const at::Tensor& w0, const at::Tensor& c, double lambda_next);
/// The same with `c` in block rows; `dw` and `w0` global on every rank of its group. Collective.
Leak measure_leak(const at::Tensor& dw, const at::Tensor& w0, const BlockRows& c, double lambda_next);

/// ||dW x|| / ||W0 x|| for the mean sink input x [n].
double sink_leak(const at::Tensor& dw, const at::Tensor& w0, const at::Tensor& sink_mean);

}  // namespace efface
