// nullspace: eigenpairs of every covariance, the rank of the retain subspace, and its projector's basis.
#include <cmath>

#include "core/subspace/eigen_stage.hpp"
#include "core/subspace/subspace_store.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {
namespace {

/// A sink that is counted needs no direction of its own, and the weighted projectors have none to give.
bool protects_sink(const NullspaceSection& nullspace) {
  return nullspace.protect_sink && nullspace.skip_sinks &&
         (nullspace.projection == "hard" || nullspace.projection == "leak");
}

nlohmann::json settings(const Workspace& work) {
  const NullspaceSection& nullspace = work.recipe.nullspace;
  nlohmann::json key = {{"projection", nullspace.projection},
                        {"rank", {nullspace.rank_rule, nullspace.rank_value}},
                        {"protect_sink", protects_sink(nullspace)}};
  if (nullspace.projection == "leak") key["leak"] = nullspace.leak;
  if (nullspace.projection == "sgp") key["sgp_scale"] = nullspace.sgp_scale;
  if (nullspace.projection == "ridge") {
    key["ridge_shift"] = nullspace.ridge_shift;
    key["cholesky"] = nullspace.solver == "auto" || nullspace.solver == "cholesky";
  }
  return key;
}

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
  options.protect_sink = protects_sink(nullspace);
  return options;
}

RankRule rank_rule(const NullspaceSection& nullspace) {
  const std::map<std::string, RankRule::Kind> kinds = {{"energy", RankRule::Kind::energy},
                                                       {"threshold", RankRule::Kind::threshold},
                                                       {"relative", RankRule::Kind::relative},
                                                       {"heldout", RankRule::Kind::heldout},
                                                       {"k", RankRule::Kind::k}};
  return {kinds.at(nullspace.rank_rule), nullspace.rank_value};
}

EigenStageOptions stage_options(const NullspaceSection& nullspace) {
  EigenStageOptions options;
  options.rank = rank_rule(nullspace);
  options.projector = projector_options(nullspace);
  options.solver = nullspace.solver == "lapack"      ? EigenStageOptions::Solver::lapack
                   : nullspace.solver == "scalapack" ? EigenStageOptions::Solver::scalapack
                   : nullspace.solver == "cholesky"  ? EigenStageOptions::Solver::cholesky
                                                     : EigenStageOptions::Solver::automatic;
  return options;
}

/// The spectrum as [index, value], indices evenly spaced from the first to the last.
nlohmann::json spectrum_points(const BasisSummary& summary) {
  nlohmann::json points = nlohmann::json::array();
  const auto last = static_cast<double>(std::max<size_t>(2, summary.spectrum.size()) - 1);
  for (size_t i = 0; i < summary.spectrum.size(); ++i)
    points.push_back({std::llround(static_cast<double>(i) * static_cast<double>(summary.n - 1) / last),
                      summary.spectrum[i]});
  return points;
}

nlohmann::json summary_json(const BasisSummary& summary, double matrix_trace) {
  nlohmann::json json = {{"input", input_name(summary.id)},
                         {"n", summary.n},
                         {"k", summary.k},
                         {"tokens", summary.tokens},
                         {"trace", matrix_trace},
                         {"lambda_1_share", summary.first_share},
                         {"lambda_next", summary.lambda_next},
                         {"top_token_share", summary.top_token_share},
                         {"tokens_per_dimension", summary.tokens_per_dimension},
                         {"energy", summary.energy},
                         {"spectrum", spectrum_points(summary)},
                         {"warnings", summary.warnings},
                         {"solver", summary.solver},
                         {"residual", summary.residual},
                         {"orthogonality", summary.orthogonality},
                         {"seconds", summary.seconds}};
  if (summary.heldout_tokens > 0) json["heldout_residual"] = summary.heldout_residual_energy;
  return json;
}

bool wanted(const Workspace& work) { return work.has_subspace(); }

nlohmann::json run(Workspace& work) {
  work.release_model();
  const auto store = CovarianceStore::open(work.run.stage_folder("covariance"));
  BasisWriter writer(work.run.stage_folder("nullspace"), work.mesh.world);
  const auto inputs = store.inputs();
  const auto total = static_cast<int64_t>(inputs.size());
  nlohmann::json all = nlohmann::json::array();
  // A few matrices at a time: all of them together can be more than a node holds.
  const int64_t together = 4 * work.mesh.world.size();
  for (int64_t at = 0; at < total; at += together) {
    std::vector<Covariance> covariances;
    for (int64_t i = at; i < std::min(total, at + together); ++i)
      covariances.push_back(store.read(inputs[static_cast<size_t>(i)], work.mesh));
    const auto solved = solve_bases(covariances, work.mesh, stage_options(work.recipe.nullspace), writer,
                                    [&](int64_t done, int64_t) { work.progress.update(at + done, total); });
    for (size_t i = 0; i < solved.size(); ++i)
      all.push_back(summary_json(solved[i], trace(covariances[i].matrix)));
  }
  writer.finish(settings(work));
  int64_t warned = 0;
  for (const auto& summary : all) warned += !summary["warnings"].empty();
  return {{"inputs", all},
          {"warned", warned},
          {"rank", {{"rule", work.recipe.nullspace.rank_rule}, {"value", work.recipe.nullspace.rank_value}}},
          {"projection", work.recipe.nullspace.projection}};
}

/// ", WHAT 93% (3.down)": the largest of a share over the inputs, and where it is.
std::string worst_share(const nlohmann::json& inputs, const char* share, const std::string& what) {
  const auto worst = std::max_element(inputs.begin(), inputs.end(), [&](const auto& a, const auto& b) {
    return a[share].template get<double>() < b[share].template get<double>();
  });
  if (worst == inputs.end()) return "";
  return ", " + what + number_text(100 * (*worst)[share].get<double>()) + "% (" +
         (*worst)["input"].get<std::string>() + ")";
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
  text += worst_share(summary["inputs"], "lambda_1_share", "lambda_1 holds up to ") +
          worst_share(summary["inputs"], "top_token_share", "one token up to ");
  std::vector<std::string> warnings;
  for (const auto& input : summary["inputs"])
    for (const auto& warning : input["warnings"])
      warnings.push_back(input["input"].get<std::string>() + ": " + warning.get<std::string>());
  constexpr size_t shown = 4;
  for (size_t i = 0; i < std::min(shown, warnings.size()); ++i)
    text.append("\n  warning: ").append(warnings[i]);
  if (warnings.size() > shown)
    text.append("\n  ... and ")
        .append(std::to_string(warnings.size() - shown))
        .append(" more, in the report");
  return text;
}

}  // namespace

Stage nullspace_stage() {
  Stage stage{"nullspace", wanted, settings,
              run,         line,   [](const Workspace&) { return std::vector<std::string>{"covariance"}; }};
  stage.version = 2;  // files whose every block is checked
  return stage;
}

}  // namespace efface
