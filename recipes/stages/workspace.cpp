#include "recipes/stages/workspace.hpp"

#include "distributed/error.hpp"

namespace efface {
namespace {

ChatTemplate choose_template(const Recipe& recipe) {
  return recipe.model.chat_template == "auto" ? ChatTemplate::detect(recipe.model.path)
                                              : ChatTemplate::named(recipe.model.chat_template);
}

std::vector<Projection> target_projections(const Recipe& recipe) {
  std::vector<Projection> projections;
  for (const auto& name : recipe.lora.target_modules) projections.push_back(projection_from_name(name));
  return projections;
}

}  // namespace

Workspace::Workspace(const Recipe& recipe, const Mesh& mesh, RunDirectory& run, ProgressLine& progress)
    : recipe(recipe),
      mesh(mesh),
      run(run),
      progress(progress),
      data(read_run_data(recipe)),
      config_(read_model_config(recipe.model.path)),
      tokenizer_(Tokenizer::load(recipe.model.path)),
      chat_(choose_template(recipe)) {
  check_tensor_parallel(config_, mesh.tensor_size());
  use_model_folder(recipe.model.path);
}

void Workspace::use_model_folder(const std::filesystem::path& folder) {
  model_folder_ = folder;
  model_key_ = {
      {"folder", model_folder_key(folder)}, {"dtype", recipe.model.dtype}, {"template", chat_.name()}};
  model_.reset();
}

Transformer& Workspace::model() {
  if (!model_) {
    TransformerOptions options;
    options.dtype = recipe.model.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
    model_ = Transformer::load(model_folder_, mesh, options);
  }
  return *model_;
}

Transformer Workspace::take_model() {
  Transformer taken = model();
  model_.reset();
  return taken;
}

LayerWindow Workspace::window() const {
  if (!find_method(recipe.method).needs_window) return {};
  if (!recipe.train.layers.empty()) {
    const auto [first, last] = std::minmax_element(recipe.train.layers.begin(), recipe.train.layers.end());
    return {static_cast<int>(*first), static_cast<int>(*last) + 1};
  }
  const nlohmann::json trace = run.summary("trace");
  return {trace.at("window").at(0).get<int>(), trace.at("window").at(1).get<int>()};
}

std::unique_ptr<Method> Workspace::method() const {
  return make_method(recipe.method, recipe.method_args, recipe.method_choices, window());
}

std::vector<ModuleId> Workspace::trained_modules() const {
  if (find_method(recipe.method).needs_window)
    return modules_of(config(), window().begin, window().end, {Projection::down});
  int begin = 0, end = static_cast<int>(config_.layers);
  if (!recipe.train.layers.empty()) {
    const auto [first, last] = std::minmax_element(recipe.train.layers.begin(), recipe.train.layers.end());
    begin = static_cast<int>(*first), end = static_cast<int>(*last) + 1;
  }
  return modules_of(config(), begin, end, target_projections(recipe));
}

bool Workspace::has_subspace() const { return recipe.nullspace.projection != "none"; }

bool Workspace::projects() const { return has_subspace() && recipe.nullspace.point != "none"; }

std::vector<std::vector<TokenRow>> split_rows(const std::vector<TokenRow>& rows, int64_t tokens) {
  std::vector<std::vector<TokenRow>> parts;
  int64_t used = 0;
  for (const auto& row : rows) {
    const auto size = static_cast<int64_t>(row.ids.size());
    if (parts.empty() || used + size > tokens) parts.emplace_back(), used = 0;
    parts.back().push_back(row);
    used += size;
  }
  return parts;
}

}  // namespace efface
