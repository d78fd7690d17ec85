// nullspace: eigenpairs of every covariance, the rank of the retain subspace, and its projector's basis.
#include "core/subspace/projector.hpp"
#include "core/subspace/subspace_store.hpp"
#include "distributed/eigensolver.hpp"
#include "distributed/error.hpp"
#include "recipes/stages/subspace_key.hpp"

namespace efface {

nlohmann::json nullspace_key(const Workspace& work) {
  if (!work.projects()) return nullptr;
  const NullspaceSection& nullspace = work.recipe.nullspace;
  nlohmann::json key = {{"covariance", covariance_key(work)},
                        {"projection", nullspace.projection},
                        {"rank", {nullspace.rank_rule, nullspace.rank_value}},
                        {"protect_sink", nullspace.protect_sink}};
  if (nullspace.projection == "leak") key["leak"] = nullspace.leak;
  if (nullspace.projection == "sgp") key["sgp_scale"] = nullspace.sgp_scale;
  if (nullspace.projection == "ridge") key["ridge_shift"] = nullspace.ridge_shift;
  return key;
}

namespace {

ProjectorOptions projector_options(const NullspaceSection& nullspace) {
  ProjectorOptions options;
  const std::map<std::string, ProjectorKind> kinds = {{"none", ProjectorKind::none},
                                                      {"hard", ProjectorKind::hard},
                                                      {"leak", ProjectorKind::leak},
                                                      {"sgp", ProjectorKind::sgp},
                                                      {"ridge", ProjectorKind::ridge}};
  options.kind = kinds.at(nullspace.projection);
  options.leak = nullspace.leak;
  options.sgp_scale = nullspace.sgp_scale;
  options.ridge_shift = nullspace.ridge_shift;
  options.protect_sink = nullspace.protect_sink;
  return options;
}

RankRule rank_rule(const NullspaceSection& nullspace) {
  const std::map<std::string, RankRule::Kind> kinds = {{"energy", RankRule::Kind::energy},
                                                       {"threshold", RankRule::Kind::threshold},
                                                       {"relative", RankRule::Kind::relative},
                                                       {"k", RankRule::Kind::k}};
  return {kinds.at(nullspace.rank_rule), nullspace.rank_value};
}

/// Share of the held-out second moment outside the first k eigenvectors: 1 - tr(U_k^T C_h U_k) / tr C_h.
double heldout_residual(const at::Tensor& heldout, const at::Tensor& vectors, int64_t k) {
  const auto u = vectors.narrow(1, 0, k);
  const double inside = at::mm(heldout, u).mul_(u).sum().item<double>();
  return 1 - inside / heldout.diagonal().sum().item<double>();
}

/// At most 64 values of the spectrum, at logarithmic steps from the first, as [index, value].
nlohmann::json sampled_spectrum(const at::Tensor& values) {
  nlohmann::json points = nlohmann::json::array();
  const auto n = values.numel();
  const double* value = values.const_data_ptr<double>();
  int64_t previous = -1;
  for (int step = 0; step < 64; ++step) {
    const auto index = static_cast<int64_t>(std::pow(static_cast<double>(n), step / 63.0)) - 1;
    if (index == previous || index >= n) continue;
    previous = index;
    points.push_back({index, value[index]});
  }
  if (previous != n - 1) points.push_back({n - 1, value[n - 1]});
  return points;
}

/// One module's whole matrices, on the rank that solves it.
struct Problem {
  InputId id;
  at::Tensor matrix, heldout, sink_mean;  // heldout may be undefined
  int64_t tokens = 0;
};

nlohmann::json solve(const Problem& problem, const Eigenpairs& pairs, const NullspaceSection& nullspace,
                     BasisWriter& writer) {
  const std::string name = input_name(problem.id);
  const int64_t k = choose_rank(pairs.values, rank_rule(nullspace), name);
  writer.write(make_basis(problem.id, pairs.values, pairs.vectors, k, projector_options(nullspace),
                          problem.sink_mean));
  const double trace = pairs.values.sum().item<double>();
  const auto n = pairs.values.numel();
  nlohmann::json summary = {{"input", name},
                            {"n", n},
                            {"k", k},
                            {"trace", trace},
                            {"lambda_1", pairs.values[0].item<double>()},
                            {"lambda_next", k < n ? pairs.values[k].item<double>() : 0.0},
                            {"lambda_1_share", pairs.values[0].item<double>() / trace},
                            {"energy", pairs.values.narrow(0, 0, k).sum().item<double>() / trace},
                            {"spectrum", sampled_spectrum(pairs.values)},
                            {"warnings", subspace_warnings(pairs.values, k, problem.tokens)},
                            {"residual", pairs.residual},
                            {"orthogonality", pairs.orthogonality},
                            {"solver", pairs.solver},
                            {"seconds", pairs.seconds}};
  if (problem.heldout.defined())
    summary["heldout_residual"] = heldout_residual(problem.heldout, pairs.vectors, k);
  return summary;
}

/// The whole matrix out of every tensor rank's file, read by one rank on its own.
at::Tensor whole(const BlockRows& rows) { return rows.n > 0 ? rows.local : at::Tensor(); }

Problem read_problem(const CovarianceStore& store, const InputId& id) {
  const Covariance covariance = store.read(id, single_mesh());
  return {id, whole(covariance.matrix), whole(covariance.heldout), covariance.sink_mean, covariance.tokens};
}

/// Every rank has some summaries; all get all of them, in the order of the inputs.
nlohmann::json gather_summaries(const Communicator& world, const nlohmann::json& mine,
                                const std::vector<InputId>& inputs) {
  std::map<std::string, nlohmann::json> by_input;
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto part =
        nlohmann::json::parse(world.broadcast(rank == world.rank() ? mine.dump() : std::string(), rank));
    for (const auto& summary : part) by_input[summary.at("input")] = summary;
  }
  nlohmann::json all = nlohmann::json::array();
  for (const auto& id : inputs) all.push_back(by_input.at(input_name(id)));
  return all;
}

/// Whole problems dealt to ranks by cost, each solved by LAPACK.
nlohmann::json solve_dealt(Workspace& work, const CovarianceStore& store, BasisWriter& writer) {
  const auto inputs = store.inputs();
  std::vector<EigenTask> tasks;
  int64_t mine = 0, done = 0;
  for (const auto& id : inputs)
    tasks.push_back({input_name(id), id.input == Input::down ? work.config().intermediate_size
                                     : id.input == Input::o  ? work.config().heads * work.config().head_dim
                                                             : work.config().hidden_size});
  const auto owner = spread_by_cost(tasks, work.mesh.world.size());
  for (const int rank : owner) mine += rank == work.mesh.world.rank();
  nlohmann::json summaries = nlohmann::json::array();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (owner[i] != work.mesh.world.rank()) continue;
    const Problem problem = read_problem(store, inputs[i]);
    summaries.push_back(solve(problem, solve_lapack(problem.matrix), work.recipe.nullspace, writer));
    work.progress.update(++done, mine);
  }
  return summaries;
}

/// Each problem spread over all ranks; the root puts the pieces together.
nlohmann::json solve_spread(Workspace& work, const CovarianceStore& store, BasisWriter& writer) {
  const Communicator& world = work.mesh.world;
  const auto inputs = store.inputs();
  nlohmann::json summaries = nlohmann::json::array();
  int64_t done = 0;
  for (const auto& id : inputs) {
    Problem problem = read_problem(store, id);
    BlockRows rows = make_block_rows(problem.matrix.size(0), world);
    rows.local.copy_(problem.matrix.narrow(0, rows.offset, rows.rows()));
    Eigenpairs pairs = solve_scalapack(rows);
    pairs.vectors = world.all_gather_rows(pairs.vectors);
    if (world.rank() == 0) summaries.push_back(solve(problem, pairs, work.recipe.nullspace, writer));
    work.progress.update(++done, static_cast<int64_t>(inputs.size()));
  }
  return summaries;
}

bool wanted(const Workspace& work) { return work.projects(); }

nlohmann::json run(Workspace& work) {
  work.release_model();
  const auto store = CovarianceStore::open(work.run.stage_folder("covariance"));
  BasisWriter writer(work.run.stage_folder("nullspace"), work.mesh.world);
  const std::string& solver = work.recipe.nullspace.solver;
  const auto inputs = store.inputs();
  bool divides = true;
  for (const int64_t n : {work.config().hidden_size, work.config().heads * work.config().head_dim,
                          work.config().intermediate_size})
    divides = divides && n % work.mesh.world.size() == 0;
  if (solver == "scalapack" && !divides)
    throw Error(ErrorClass::usage,
                work.recipe.locate("nullspace.solver") + ": the model's widths do not divide by " +
                    std::to_string(work.mesh.world.size()) + " ranks",
                "use lapack");
  const bool spread = solver == "scalapack" || (solver == "auto" && divides &&
                                                static_cast<int>(inputs.size()) < work.mesh.world.size());
  const auto mine = spread ? solve_spread(work, store, writer) : solve_dealt(work, store, writer);
  const auto all = gather_summaries(work.mesh.world, mine, inputs);
  writer.finish(nullspace_key(work));
  for (const auto& summary : all)
    for (const auto& warning : summary["warnings"])
      work.progress.say("warning: " + summary["input"].get<std::string>() + ": " +
                        warning.get<std::string>());
  return {{"inputs", all},
          {"rank", {{"rule", work.recipe.nullspace.rank_rule}, {"value", work.recipe.nullspace.rank_value}}},
          {"projection", work.recipe.nullspace.projection}};
}

std::string line(const nlohmann::json& summary) {
  double retained = 0, outside = 0;
  int64_t heldout = 0;
  for (const auto& input : summary["inputs"]) {
    retained += input["k"].get<double>() / input["n"].get<double>();
    if (input.contains("heldout_residual")) outside += input["heldout_residual"].get<double>(), ++heldout;
  }
  const auto count = static_cast<double>(summary["inputs"].size());
  std::string text = std::to_string(summary["inputs"].size()) + " bases, " +
                     number_text(100 * retained / count) + "% of the directions retained";
  if (heldout > 0)
    text += ", " + number_text(100 * outside / static_cast<double>(heldout)) + "% of held-out energy outside";
  return text;
}

}  // namespace

Stage nullspace_stage() { return {"nullspace", wanted, nullspace_key, run, line}; }

}  // namespace efface
