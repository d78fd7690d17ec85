#include "recipes/stages/leaks.hpp"

#include "core/storage/safetensors.hpp"
#include "core/subspace/projector.hpp"
#include "core/subspace/subspace_store.hpp"

namespace efface {
namespace {

/// dW as an export has it: the rounded sum less the original.
at::Tensor rounded(const at::Tensor& w0, const at::Tensor& dw, at::ScalarType dtype) {
  return (w0 + dw).to(dtype).to(at::kFloat) - w0;
}

nlohmann::json figures(const ModuleId& module, const at::Tensor& w0, const at::Tensor& dw,
                       at::ScalarType export_dtype, const Covariance& covariance, double lambda_next) {
  const at::Tensor& c = covariance.matrix.local;
  const Leak leak = measure_leak(dw, w0, c, lambda_next);
  nlohmann::json row = {{"module", module_name(module)},
                        {"of_update", leak.of_update},
                        {"of_output", leak.of_output},
                        {"bound", leak.bound},
                        {"relative_norm", dw.norm().item<double>() / w0.norm().item<double>()}};
  if (covariance.heldout.n > 0) {
    const Leak heldout = measure_leak(dw, w0, covariance.heldout.local, 0);
    row["heldout_of_update"] = heldout.of_update;
    row["heldout_of_output"] = heldout.of_output;
  }
  if (export_dtype != at::kFloat) {
    const Leak after = measure_leak(rounded(w0, dw, export_dtype), w0, c, lambda_next);
    row["rounded_of_update"] = after.of_update;
    row["rounded_of_output"] = after.of_output;
  }
  if (covariance.sink_mean.defined()) row["sink"] = sink_leak(dw, w0, covariance.sink_mean);
  return row;
}

}  // namespace

nlohmann::json measure_constraint(Workspace& work, const ModelUpdate& update) {
  nlohmann::json result = nlohmann::json::object();
  if (!work.projects()) return result;
  const auto covariances = CovarianceStore::open(work.run.stage_folder("covariance"));
  const auto bases = BasisStore::open(work.run.stage_folder("nullspace"));
  const auto source = SafetensorsReader::open_folder(work.model_folder());
  // Inputs are dealt to ranks, so that a matrix is read once.
  const auto modules = update.modules();
  const auto inputs = inputs_of(modules);
  const Communicator& world = work.mesh.world;
  std::map<std::string, nlohmann::json> mine;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (static_cast<int>(i) % world.size() != world.rank()) continue;
    const Covariance covariance = covariances.read(inputs[i], single_mesh());
    const Basis basis = bases.read(inputs[i]);
    const double lambda_next = basis.k < basis.n ? basis.eigenvalues[basis.k].item<double>() : 0;
    for (const auto& module : modules) {
      if (input_of(module) != inputs[i]) continue;
      const std::string name = module_name(module) + ".weight";
      const auto dtype = work.recipe.output.dtype == "fp32" ? at::kFloat : source.dtype(name);
      mine[module_name(module)] = figures(module, source.read(name).to(at::kFloat), update.delta(module),
                                          dtype, covariance, lambda_next);
    }
    work.progress.update(static_cast<int64_t>(i) + 1, static_cast<int64_t>(inputs.size()));
  }
  std::map<std::string, nlohmann::json> all;
  for (int rank = 0; rank < world.size(); ++rank) {
    // A name of its own: items() of a temporary would outlive it.
    const auto theirs = nlohmann::json::parse(
        world.broadcast(rank == world.rank() ? nlohmann::json(mine).dump() : std::string(), rank));
    for (const auto& [name, row] : theirs.items()) all[name] = row;
  }
  double worst = 0;
  result["modules"] = nlohmann::json::array();
  for (const auto& module : modules) {
    const auto& row = all.at(module_name(module));
    if (row["bound"].get<double>() > 0)
      worst = std::max(worst, row["of_update"].get<double>() / row["bound"].get<double>());
    result["modules"].push_back(row);
  }
  result["worst_of_bound"] = worst;
  return result;
}

}  // namespace efface
