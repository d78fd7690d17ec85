// From covariances to bases on disk, and what is to be said of each: the second half of the retain subspace.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/subspace/covariance.hpp"
#include "core/subspace/projector.hpp"
#include "core/subspace/subspace_store.hpp"

namespace efface {

struct EigenStageOptions {
  RankRule rank = {};
  ProjectorOptions projector = {};
  /// automatic: problems spread over all ranks, LAPACK, where there are at least as many problems as ranks
  /// (or tensor groups are of one rank, or a width does not divide by the group); else each problem over a
  /// tensor group, ScaLAPACK. The ridge projector is had by Cholesky, spread over all ranks, unless an
  /// eigensolver is asked for; `cholesky` is for that projector alone, Error(recipe) with another.
  enum class Solver { automatic, lapack, scalapack, cholesky } solver = Solver::automatic;
};

/// By Cholesky (no eigenvectors): k is the effective dimension of what is kept, tr(I - P), energy its share
/// of the trace, 1 - residual_energy, first_share an estimate by power iteration; lambda_next and
/// orthogonality are 0, the spectrum is empty.
struct BasisSummary {
  InputId id;
  int64_t n = 0, k = 0;
  int64_t tokens = 0, heldout_tokens = 0;
  double energy = 0;                   ///< share of the trace inside U_k, on the covariance's own tokens
  double residual_energy = 0;          ///< tr(P C P) / tr C
  double heldout_residual_energy = 0;  ///< the same of the held-out second moment; 0 where there is none
  double lambda_next = 0;              ///< lambda_{k+1}, for measure_leak()
  double first_share = 0;              ///< lambda_1 / tr C
  double top_token_share = 0;          ///< share of the uncapped trace held by the largest token
  double tokens_per_dimension = 0;
  double norm_cap = 0;
  std::string solver;
  double seconds = 0, residual = 0, orthogonality = 0;  ///< of the eigensolver
  std::vector<double> spectrum;  ///< at most 64 eigenvalues, evenly spaced by index, first and last included
  std::vector<std::string> warnings;  ///< see subspace_warnings()
};
nlohmann::json to_json(const BasisSummary& summary);

/// Every basis goes to `writer` on the rank that solved it (writer.finish() is the caller's). The summaries
/// are the same on every rank, in the order of `covariances`. progress(done, total) is called on every rank.
/// An error of one problem (Error(numeric) of the solver or of choose_rank()) is thrown on every rank, after
/// the others are done. Collective over the mesh.
std::vector<BasisSummary> solve_bases(const std::vector<Covariance>& covariances, const Mesh& mesh,
                                      const EigenStageOptions& options, BasisWriter& writer,
                                      const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace efface
