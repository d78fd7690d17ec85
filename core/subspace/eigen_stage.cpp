#include "core/subspace/eigen_stage.hpp"

#include <algorithm>

#include "core/storage/merged_json.hpp"
#include "distributed/eigensolver.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int64_t kSpectrumPoints = 64;

// v^T C v for every column v.
at::Tensor energy_along(const at::Tensor& vectors, const at::Tensor& c) {
  return (c.matmul(vectors) * vectors).sum(0);
}

// tr(P C P) / tr C. With v_i orthonormal, tr(P^2 C) = tr C - sum (2 w_i - w_i^2) v_i^T C v_i.
double residual_energy(const Basis& basis, const at::Tensor& c) {
  const double total = c.diagonal().sum().item<double>();
  if (!basis.vectors.defined() || !(total > 0)) return 1;
  const at::Tensor vectors = basis.vectors.to(at::kDouble);
  const at::Tensor along = energy_along(vectors, c);
  if (basis.complement) return along.sum().item<double>() / total;
  const at::Tensor w = basis.weights.to(at::kDouble);
  return 1 - ((2 * w - w * w) * along).sum().item<double>() / total;
}

std::vector<double> downsample(const at::Tensor& values) {
  const int64_t n = values.numel(), points = std::min(n, kSpectrumPoints);
  std::vector<double> result;
  for (int64_t i = 0; i < points; ++i)
    result.push_back(values[points > 1 ? i * (n - 1) / (points - 1) : 0].item<double>());
  return result;
}

// The thinner side alone, but where the rank hangs on all vectors' held-out energy.
WantedVectors wanted_vectors(const Covariance& covariance, const EigenStageOptions& options) {
  if (options.rank.kind == RankRule::Kind::heldout) return {};
  return [rank = options.rank, projector = options.projector,
          name = input_name(covariance.id)](const at::Tensor& values) {
    return basis_vectors(projector, values.numel(), choose_rank(values.clamp_min(0), rank, name));
  };
}

BasisSummary summary_of(const Covariance& covariance, const Basis& basis) {
  BasisSummary s;
  s.id = covariance.id;
  s.n = basis.n;
  s.k = basis.k;
  s.tokens = covariance.tokens;
  s.heldout_tokens = covariance.heldout_tokens;
  s.top_token_share = covariance.top_token_share;
  s.tokens_per_dimension = static_cast<double>(covariance.tokens) / static_cast<double>(s.n);
  s.norm_cap = covariance.norm_cap;
  return s;
}

bool by_cholesky(const EigenStageOptions& options) {
  const bool asked = options.solver == EigenStageOptions::Solver::cholesky;
  if (options.projector.kind == ProjectorKind::ridge)
    return asked || options.solver == EigenStageOptions::Solver::automatic;
  if (asked)
    throw Error(ErrorClass::recipe, "the Cholesky solver has no eigenvectors, which this projector needs",
                "choose 'nullspace.projection: ridge' or another 'nullspace.solver'");
  return false;
}

// An estimate from below, close where lambda_1 stands out, which is where it is asked about.
double largest_eigenvalue(const at::Tensor& c) {
  constexpr int kIterations = 30;
  at::Tensor v = c.diagonal().sqrt();
  double value = 0;
  for (int i = 0; i < kIterations; ++i) {
    const at::Tensor next = c.matmul(v / v.norm());
    value = next.norm().item<double>();
    if (!(value > 0)) return 0;
    v = next;
  }
  return value;
}

// The same for the ridge projector, P = tau (C + tau I)^-1, which needs no eigenvectors.
nlohmann::json conclude_ridge(const Covariance& covariance, const at::Tensor& matrix,
                              const at::Tensor& heldout, const EigenStageOptions& options,
                              BasisWriter& writer) {
  const double total = matrix.diagonal().sum().item<double>();
  require_energy(total, input_name(covariance.id));
  const double tau = ridge_shift(options.projector, total, matrix.size(0));
  const RidgeFactor factor = solve_ridge(matrix, tau);
  const Basis basis = make_ridge_basis(covariance.id, factor.vectors);
  writer.write(basis);

  BasisSummary s = summary_of(covariance, basis);
  const at::Tensor p = factor.vectors.matmul(factor.vectors.t());
  const double kept = p.square().sum().item<double>();
  // C = tau (P^-1 - I), so tr(P C P) = tau (tr P - ||P||_F^2).
  s.residual_energy = tau * (p.diagonal().sum().item<double>() - kept) / total;
  if (heldout.defined())
    s.heldout_residual_energy =
        (heldout.matmul(p) * p).sum().item<double>() / heldout.diagonal().sum().item<double>();
  s.energy = 1 - s.residual_energy;
  s.first_share = largest_eigenvalue(matrix) / total;
  s.solver = factor.solver;
  s.seconds = factor.seconds;
  s.residual = factor.residual;
  s.warnings = subspace_warnings(s.first_share, s.n, s.k, covariance.tokens);
  return to_json(s);
}

// A solved problem on the rank that owns it: the basis is written, the summary kept.
nlohmann::json conclude(const Covariance& covariance, const Eigenpairs& pairs, const at::Tensor& matrix,
                        const at::Tensor& heldout, const EigenStageOptions& options, BasisWriter& writer) {
  const at::Tensor values = pairs.values.clamp_min(0);
  const int64_t k = choose_rank(values, options.rank, input_name(covariance.id),
                                options.rank.kind == RankRule::Kind::heldout && heldout.defined()
                                    ? energy_along(pairs.vectors, heldout)
                                    : at::Tensor());
  const Basis basis =
      make_basis(covariance.id, values, pairs.vectors, k, options.projector, covariance.sink_mean);
  writer.write(basis);

  BasisSummary s = summary_of(covariance, basis);
  const double total = values.sum().item<double>();
  s.energy = values.narrow(0, 0, k).sum().item<double>() / total;
  s.residual_energy = residual_energy(basis, matrix);
  if (heldout.defined()) s.heldout_residual_energy = residual_energy(basis, heldout);
  s.lambda_next = k < s.n ? values[k].item<double>() : 0;
  s.first_share = values[0].item<double>() / total;
  s.solver = pairs.solver;
  s.seconds = pairs.seconds;
  s.residual = pairs.residual;
  s.orthogonality = pairs.orthogonality;
  s.spectrum = downsample(values);
  s.warnings = subspace_warnings(s.first_share, s.n, k, covariance.tokens);
  return to_json(s);
}

BasisSummary from_json(const nlohmann::json& j, const InputId& id) {
  BasisSummary s;
  s.id = id;
  s.n = j.at("n");
  s.k = j.at("k");
  s.tokens = j.at("tokens");
  s.heldout_tokens = j.at("heldout_tokens");
  s.energy = j.at("energy");
  s.residual_energy = j.at("residual_energy");
  s.heldout_residual_energy = j.at("heldout_residual_energy");
  s.lambda_next = j.at("lambda_next");
  s.first_share = j.at("first_share");
  s.top_token_share = j.at("top_token_share");
  s.tokens_per_dimension = j.at("tokens_per_dimension");
  s.norm_cap = j.at("norm_cap");
  s.solver = j.at("solver");
  s.seconds = j.at("seconds");
  s.residual = j.at("residual");
  s.orthogonality = j.at("orthogonality");
  s.spectrum = j.at("spectrum").get<std::vector<double>>();
  s.warnings = j.at("warnings").get<std::vector<std::string>>();
  return s;
}

// One rank's results by input name: a summary, or {"error": text, "class": exit code}.
class Results {
 public:
  explicit Results(const Communicator& world) : world_(world) {}

  // `problem` gives null on ranks that only help. Errors wait, since the other ranks go on to the next
  // collective.
  void run(const std::string& name, const std::function<nlohmann::json()>& problem) {
    try {
      nlohmann::json result = problem();
      if (!result.is_null()) mine_[name] = std::move(result);
    } catch (const Error& error) {
      mine_[name] = {{"error", error.what()}, {"class", error.exit_code()}};
    }
  }

  std::vector<BasisSummary> collect(const std::vector<Covariance>& covariances) const {
    const nlohmann::json all = merged_over_ranks(world_, mine_);
    std::vector<BasisSummary> summaries;
    for (const Covariance& covariance : covariances) {
      const auto& result = all.at(input_name(covariance.id));
      if (result.contains("error"))
        throw Error(static_cast<ErrorClass>(result.at("class").get<int>()), result.at("error"));
      summaries.push_back(from_json(result, covariance.id));
    }
    return summaries;
  }

 private:
  Communicator world_;
  nlohmann::json mine_ = nlohmann::json::object();
};

// tasks[owner] in the order they are solved, widest first.
std::vector<std::vector<size_t>> schedule(const std::vector<Covariance>& covariances, int owners) {
  std::vector<EigenTask> tasks;
  for (const Covariance& covariance : covariances)
    tasks.push_back({input_name(covariance.id), covariance.matrix.n});
  const std::vector<int> owner = spread_by_cost(tasks, owners);
  std::vector<std::vector<size_t>> result(static_cast<size_t>(owners));
  for (size_t i = 0; i < tasks.size(); ++i) result[static_cast<size_t>(owner[i])].push_back(i);
  for (auto& list : result)
    std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) { return tasks[a].n > tasks[b].n; });
  return result;
}

size_t rounds_of(const std::vector<std::vector<size_t>>& schedule) {
  size_t rounds = 0;
  for (const auto& list : schedule) rounds = std::max(rounds, list.size());
  return rounds;
}

// Problems finished after `round` by all owners together.
int64_t done_after(const std::vector<std::vector<size_t>>& schedule, size_t round) {
  int64_t done = 0;
  for (const auto& list : schedule) done += static_cast<int64_t>(std::min(list.size(), round + 1));
  return done;
}

using Progress = std::function<void(int64_t, int64_t)>;

// Round by round each rank of a tensor group gets one whole matrix, then all of them solve at the same time.
void solve_spread(const std::vector<Covariance>& covariances, const Mesh& mesh,
                  const EigenStageOptions& options, BasisWriter& writer, Results& results,
                  const Progress& progress) {
  const auto tasks = schedule(covariances, mesh.world.size());
  const int first = mesh.data_rank() * mesh.tensor_size();  // world rank of this tensor group's first member
  for (size_t round = 0; round < rounds_of(tasks); ++round) {
    const Covariance* mine = nullptr;
    at::Tensor matrix, heldout;
    for (int rank = 0; rank < mesh.tensor_size(); ++rank) {
      const auto& list = tasks[static_cast<size_t>(first + rank)];
      if (round >= list.size()) continue;
      const Covariance& covariance = covariances[list[round]];
      const at::Tensor whole = gather_block_rows(covariance.matrix, rank);
      const at::Tensor whole_heldout =
          covariance.heldout_tokens > 0 ? gather_block_rows(covariance.heldout, rank) : at::Tensor();
      if (rank != mesh.tensor_rank()) continue;
      mine = &covariance;
      matrix = whole;
      heldout = whole_heldout;
    }
    if (mine)
      results.run(input_name(mine->id), [&] {
        if (by_cholesky(options)) return conclude_ridge(*mine, matrix, heldout, options, writer);
        return conclude(*mine, solve_lapack(matrix, wanted_vectors(*mine, options)), matrix, heldout, options,
                        writer);
      });
    if (progress) progress(done_after(tasks, round), static_cast<int64_t>(covariances.size()));
  }
}

// Problems over data ranks, each solved by all ranks of its tensor group; the group's first rank concludes.
void solve_together(const std::vector<Covariance>& covariances, const Mesh& mesh,
                    const EigenStageOptions& options, BasisWriter& writer, Results& results,
                    const Progress& progress) {
  const auto tasks = schedule(covariances, mesh.data_size());
  const auto& mine = tasks[static_cast<size_t>(mesh.data_rank())];
  for (size_t round = 0; round < rounds_of(tasks); ++round) {
    if (round < mine.size()) {
      const Covariance& covariance = covariances[mine[round]];
      results.run(input_name(covariance.id), [&]() -> nlohmann::json {
        // Throws on all ranks of the group or none.
        Eigenpairs pairs = solve_scalapack(covariance.matrix, wanted_vectors(covariance, options));
        pairs.vectors =
            gather_block_rows({covariance.matrix.n, covariance.matrix.offset, pairs.vectors, mesh.tensor}, 0);
        const at::Tensor matrix = gather_block_rows(covariance.matrix, 0);
        const at::Tensor heldout =
            covariance.heldout_tokens > 0 ? gather_block_rows(covariance.heldout, 0) : at::Tensor();
        if (mesh.tensor_rank() != 0) return nullptr;
        return conclude(covariance, pairs, matrix, heldout, options, writer);
      });
    }
    if (progress) progress(done_after(tasks, round), static_cast<int64_t>(covariances.size()));
  }
}

bool over_groups(const std::vector<Covariance>& covariances, const Mesh& mesh,
                 EigenStageOptions::Solver solver) {
  if (mesh.tensor_size() == 1 || solver == EigenStageOptions::Solver::lapack) return false;
  const bool divides = std::all_of(covariances.begin(), covariances.end(), [&](const Covariance& covariance) {
    return covariance.matrix.n % mesh.tensor_size() == 0;
  });
  return divides && (solver == EigenStageOptions::Solver::scalapack ||
                     static_cast<int>(covariances.size()) < mesh.world.size());
}

}  // namespace

nlohmann::json to_json(const BasisSummary& s) {
  return {{"input", input_name(s.id)},
          {"n", s.n},
          {"k", s.k},
          {"tokens", s.tokens},
          {"heldout_tokens", s.heldout_tokens},
          {"energy", s.energy},
          {"residual_energy", s.residual_energy},
          {"heldout_residual_energy", s.heldout_residual_energy},
          {"lambda_next", s.lambda_next},
          {"first_share", s.first_share},
          {"top_token_share", s.top_token_share},
          {"tokens_per_dimension", s.tokens_per_dimension},
          {"norm_cap", s.norm_cap},
          {"solver", s.solver},
          {"seconds", s.seconds},
          {"residual", s.residual},
          {"orthogonality", s.orthogonality},
          {"spectrum", s.spectrum},
          {"warnings", s.warnings}};
}

std::vector<BasisSummary> solve_bases(const std::vector<Covariance>& covariances, const Mesh& mesh,
                                      const EigenStageOptions& options, BasisWriter& writer,
                                      const Progress& progress) {
  Results results(mesh.world);
  if (!by_cholesky(options) && over_groups(covariances, mesh, options.solver))
    solve_together(covariances, mesh, options, writer, results, progress);
  else
    solve_spread(covariances, mesh, options, writer, results, progress);
  return results.collect(covariances);
}

}  // namespace efface
