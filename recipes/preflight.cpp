#include "recipes/preflight.hpp"

#include <algorithm>

#include "distributed/error.hpp"

namespace efface {
namespace {

void check_layers(const Recipe& recipe, const ModelConfig& config) {
  for (const int64_t layer : recipe.train.layers)
    if (layer >= config.layers)
      throw Error(ErrorClass::recipe, recipe.locate("train.layers") + " names layer " +
                                          std::to_string(layer) + ", but the model has " +
                                          std::to_string(config.layers));
}

/// One token to every question that the frozen model will be asked.
OwnAnswers stand_ins(const RowMaker& maker, const RunData& data) {
  OwnAnswers answers;
  for (const Record* record : retain_records(maker.recipe, data))
    if (is_question(*record)) answers[maker.prompt(*record).row_id()] = {{0}, true};
  return answers;
}

void check_sink(const Recipe& recipe) {
  const auto& nullspace = recipe.nullspace;
  const bool weighted = nullspace.projection == "sgp" || nullspace.projection == "ridge";
  if (weighted && nullspace.protect_sink && recipe.where.count("nullspace.protect_sink"))
    throw Error(ErrorClass::recipe,
                recipe.locate("nullspace.protect_sink") + " does not go with " + nullspace.projection,
                "use hard or leak, or 'nullspace.skip_sinks: no', which counts position 0");
}

void check_solver(const Recipe& recipe) {
  if (recipe.nullspace.solver != "cholesky" || recipe.nullspace.projection == "ridge") return;
  throw Error(ErrorClass::recipe,
              recipe.locate("nullspace.solver") + " has no eigenvectors, which 'nullspace.projection: " +
                  recipe.nullspace.projection + "' needs",
              "use 'projection: ridge', or another solver");
}

void check_formats(const Recipe& recipe, const Method& method, std::vector<std::string>& warnings) {
  const auto& formats = recipe.output.formats;
  const bool adapters_asked_for = recipe.where.count("output.formats") > 0 &&
                                  std::find(formats.begin(), formats.end(), "peft") != formats.end();
  if (!adapters_asked_for || method.trains() == TrainedParameters::lora) return;
  const std::string problem = recipe.locate("output.formats") + " asks for a PEFT adapter, but " +
                              method.name() + " trains whole matrices";
  if (formats.size() == 1)
    throw Error(ErrorClass::recipe, problem + ": nothing would be exported",
                "give 'output.formats: [huggingface]', or [] for nothing");
  warnings.push_back(problem + ": there will be none");
}

void check_unread_settings(const Recipe& recipe, const Method& method, std::vector<std::string>& warnings) {
  const auto roles = method.roles();
  for (const RowRole role : {RowRole::forget, RowRole::safe, RowRole::retain, RowRole::retain_kl}) {
    if (std::find(roles.begin(), roles.end(), role) != roles.end()) continue;
    const auto rows = recipe.train.rows.find(role_name(role));
    if (rows != recipe.train.rows.end() && rows->second > 0)
      warnings.push_back(recipe.locate("train.rows." + role_name(role)) + " does nothing: " + method.name() +
                         " reads no such rows");
    const std::string weight = "train.first_token_weight." + role_name(role);
    if (recipe.where.count(weight))
      warnings.push_back(recipe.locate(weight) + " does nothing: " + method.name() + " reads no such rows");
  }
  if (recipe.where.count("train.forget_tokens") && !find_method(recipe.method).needs_window)
    warnings.push_back(recipe.locate("train.forget_tokens") + " does nothing: " + method.name() +
                       " does not turn representations");
  if (recipe.train.initial_noise > 0 && method.trains() == TrainedParameters::lora)
    warnings.push_back(recipe.locate("train.initial_noise") + " does nothing: " + method.name() +
                       " trains adapters, and it is for whole matrices");
}

}  // namespace

std::vector<std::string> check_before_work(const Recipe& recipe, const ModelConfig& config,
                                           const RowMaker& maker, const RunData& data) {
  check_layers(recipe, config);
  check_sink(recipe);
  check_solver(recipe);
  const auto method = method_without_window(recipe);
  make_pool(maker, data, *method, stand_ins(maker, data));
  std::vector<std::string> warnings;
  check_formats(recipe, *method, warnings);
  check_unread_settings(recipe, *method, warnings);
  return warnings;
}

}  // namespace efface
