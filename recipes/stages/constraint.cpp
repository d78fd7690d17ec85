// constraint: what the update does to the tokens that were to be retained, module by module, on the tokens of
// the covariance and on held-out ones, as it was trained and as an export rounds it. A stage of its own: it
// is cheap, and it alone depends on the exported dtype.
#include <optional>

#include "core/model/tensors.hpp"
#include "core/storage/merged_json.hpp"
#include "core/storage/safetensors.hpp"
#include "core/subspace/projector.hpp"
#include "core/subspace/subspace_store.hpp"
#include "recipes/stages/model_update.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {
namespace {

/// dW as an export has it: the rounded sum less the original.
at::Tensor rounded(const at::Tensor& w0, const at::Tensor& dw, at::ScalarType dtype) {
  return (w0 + dw).to(dtype).to(at::kFloat) - w0;
}

nlohmann::json figures(const ModuleId& module, const at::Tensor& w0, const at::Tensor& dw,
                       at::ScalarType export_dtype, const Covariance& covariance,
                       std::optional<double> lambda_next) {
  const at::Tensor& c = covariance.matrix.local;
  const Leak leak = measure_leak(dw, w0, c, lambda_next.value_or(0));
  nlohmann::json row = {{"module", module_name(module)},
                        {"of_update", leak.of_update},
                        {"of_output", leak.of_output},
                        {"relative_norm", dw.norm().item<double>() / w0.norm().item<double>()}};
  if (lambda_next) row["bound"] = leak.bound;
  if (covariance.heldout.n > 0) {
    const Leak heldout = measure_leak(dw, w0, covariance.heldout.local, 0);
    row["heldout_of_update"] = heldout.of_update;
    row["heldout_of_output"] = heldout.of_output;
  }
  if (export_dtype != at::kFloat) {
    const Leak after = measure_leak(rounded(w0, dw, export_dtype), w0, c, 0);
    row["rounded_of_update"] = after.of_update;
    row["rounded_of_output"] = after.of_output;
  }
  if (covariance.sink_mean.defined()) row["sink"] = sink_leak(dw, w0, covariance.sink_mean);
  return row;
}

/// The largest leak in units of its module's bound; nothing where no module has that leak, or a bound.
std::optional<double> worst_of_bound(const nlohmann::json& rows, const std::string& leak) {
  std::optional<double> worst;
  for (const auto& row : rows) {
    if (!row.contains(leak) || !row.contains("bound")) continue;
    // A full basis has bound 0: nothing may be written there at all.
    const double bound = row["bound"], of_bound = bound > 0 ? row[leak].get<double>() / bound : 0;
    worst = std::max(worst.value_or(0), of_bound);
  }
  return worst;
}

nlohmann::json run(Workspace& work) {
  const auto update = ModelUpdate::read(work.run.stage_folder("unlearn") / "update.safetensors");
  const auto covariances = CovarianceStore::open(work.run.stage_folder("covariance"));
  const auto bases = BasisStore::open(work.run.stage_folder("nullspace"));
  const auto source = SafetensorsReader::open_folder(work.model_folder());
  // Inputs are dealt to ranks, so that a matrix is read once.
  const auto modules = update.modules();
  const auto inputs = inputs_of(modules);
  const Communicator& world = work.mesh.world;
  nlohmann::json mine = nlohmann::json::object();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (static_cast<int>(i) % world.size() != world.rank()) continue;
    const Covariance covariance = covariances.read(inputs[i], single_mesh());
    const Basis basis = bases.read(inputs[i]);
    // Without a spectrum (ridge by Cholesky) there is no bound.
    std::optional<double> lambda_next;
    if (basis.eigenvalues.numel() > 0)
      lambda_next = basis.k < basis.n ? basis.eigenvalues[basis.k].item<double>() : 0;
    for (const auto& module : modules) {
      if (input_of(module) != inputs[i]) continue;
      const auto [name, row] = stored_weight(work.config(), module);
      const auto dtype = work.recipe.output.dtype == "fp32" ? at::kFloat : source.dtype(name);
      const auto w0 = source.read_slice(name, 0, row, row + output_width(work.config(), module));
      mine[module_name(module)] =
          figures(module, w0.to(at::kFloat), update.delta(module), dtype, covariance, lambda_next);
    }
    work.progress.update(static_cast<int64_t>(i) + 1, static_cast<int64_t>(inputs.size()));
  }
  const nlohmann::json all = merged_over_ranks(world, mine);
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& module : modules) rows.push_back(all.at(module_name(module)));
  double worst_leak = 0;
  for (const auto& row : rows) worst_leak = std::max(worst_leak, row["of_update"].get<double>());
  nlohmann::json summary = {{"modules", rows}, {"worst_leak", worst_leak}};
  for (const auto& [name, leak] :
       std::map<std::string, std::string>{{"worst_of_bound", "of_update"},
                                          {"worst_heldout_of_bound", "heldout_of_update"},
                                          {"worst_rounded_of_bound", "rounded_of_update"}})
    if (const auto worst = worst_of_bound(rows, leak)) summary[name] = *worst;
  return summary;
}

nlohmann::json settings(const Workspace& work) { return {{"dtype", work.recipe.output.dtype}}; }

std::vector<std::string> reads(const Workspace&) { return {"covariance", "nullspace", "unlearn"}; }

std::string line(const nlohmann::json& summary) {
  const auto figure = [&](const char* name, const char* where) {
    return summary.contains(name) ? ", " + number_text(summary[name]) + where : std::string();
  };
  if (!summary.contains("worst_of_bound"))
    return "leak at most " + number_text(summary["worst_leak"]) + " (without a spectrum there is no bound)";
  return "leak at most " + number_text(summary["worst_of_bound"]) + " of its bound" +
         figure("worst_heldout_of_bound", " on held-out tokens") +
         figure("worst_rounded_of_bound", " after rounding");
}

}  // namespace

Stage constraint_stage() {
  return {"constraint", [](const Workspace& work) { return work.has_subspace(); }, settings, run, line,
          reads};
}

}  // namespace efface
