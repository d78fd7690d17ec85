// export: the result as a Hugging Face folder and as a PEFT adapter, with a card that says how it was made.
#include <sstream>

#include "recipes/stages/export_formats.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {
namespace {

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool wanted(const Workspace& work) { return !work.recipe.output.formats.empty(); }

nlohmann::json settings(const Workspace& work) {
  return {{"formats", work.recipe.output.formats},
          {"dtype", work.recipe.output.dtype},
          // The card and the adapter's configuration name their base models.
          {"models", {work.recipe.model.path.filename().string(), work.model_folder().string()}}};
}

/// The update, and what the card says of it.
std::vector<std::string> reads(const Workspace& work) {
  std::vector<std::string> stages = {"unlearn"};
  if (work.projects()) stages.emplace_back("constraint");
  if (work.recipe.evaluate.before) stages.emplace_back("before");
  if (work.recipe.evaluate.after) stages.emplace_back("evaluate");
  return stages;
}

std::string score_row(const std::string& name, const nlohmann::json& before, const nlohmann::json& after) {
  const auto cell = [&](const nlohmann::json& summary, const char* figure) {
    if (summary.is_null() || !summary["scores"].contains(name) || !summary["scores"][name].contains(figure))
      return std::string("-");
    return number_text(summary["scores"][name][figure].get<double>());
  };
  std::ostringstream row;
  row << "| " << name << " |";
  for (const char* figure : {"geometric_mean", "argmax_share", "refusal_share"})
    row << " " << cell(before, figure) << " | " << cell(after, figure) << " |";
  row << "\n";
  return row.str();
}

std::string figures(const nlohmann::json& before, const nlohmann::json& after) {
  std::ostringstream table;
  table << "| questions | p before | p after | first token right before | after | refused before | after |\n"
        << "|---|---|---|---|---|---|---|\n";
  for (const auto& [name, scores] : after["scores"].items()) table << score_row(name, before, after);
  if (after["perplexity"].get<double>() > 0) {
    table << "\nPerplexity of held-out text: ";
    if (!before.is_null()) table << number_text(before["perplexity"]) << " before, ";
    table << number_text(after["perplexity"]) << " after.\n";
  }
  return table.str();
}

std::string model_card(Workspace& work, const ModelUpdate& update) {
  const Recipe& recipe = work.recipe;
  const nlohmann::json before = recipe.evaluate.before ? work.run.summary("before") : nlohmann::json();
  const nlohmann::json after = recipe.evaluate.after ? work.run.summary("evaluate") : nlohmann::json();
  const nlohmann::json training = work.run.summary("unlearn");
  std::ostringstream card;
  card << "---\nbase_model: " << recipe.model.path.filename().string()
       << "\ntags: [unlearning, efface]\n---\n\n"
       << "# " << recipe.model.path.filename().string() << ", after unlearning\n\n"
       << "Made by efface " << EFFACE_VERSION << " from `" << recipe.model.path.filename().string()
       << "` with " << recipe.method << ": " << training["steps"].size() << " steps that changed "
       << update.modules().size()
       << " linear layers; every other tensor is that of the base model, byte for byte.\n\n";
  if (work.projects()) {
    const auto& constraint = work.run.summary("constraint");
    const bool bounded = constraint.contains("worst_of_bound");
    card << "Updates were projected (" << recipe.nullspace.projection << ", rank by "
         << recipe.nullspace.rank_rule << " " << number_text(recipe.nullspace.rank_value)
         << ") so that the retained inputs of these layers keep their outputs. "
         << "Largest leak on the tokens of the covariance, "
         << (bounded ? "in units of its bound" : "‖dW X‖ / (‖dW‖ ‖X‖)") << ": "
         << number_text(constraint.at(bounded ? "worst_of_bound" : "worst_leak")) << ".\n\n";
  }
  if (!after.is_null()) card << figures(before, after);
  card << "\n## Recipe\n\n```yaml\n" << effective_recipe(recipe) << "```\n";
  return card.str();
}

nlohmann::json run(Workspace& work) {
  work.release_model();
  nlohmann::json summary = nlohmann::json::object();
  if (work.mesh.is_root()) {
    const auto folder = work.run.stage_folder("export");
    const auto update = ModelUpdate::read(work.run.stage_folder("unlearn") / "update.safetensors");
    const std::string card = model_card(work, update);
    if (has(work.recipe.output.formats, "huggingface")) {
      const auto done = export_huggingface(work.model_folder(), folder / "huggingface", update,
                                           work.recipe.output.dtype == "fp32", card);
      summary["huggingface"] = {
          {"folder", "export/huggingface"}, {"tensors", done.tensors}, {"changed", done.changed}};
    }
    if (has(work.recipe.output.formats, "peft") && update.is_lora()) {
      export_peft(folder / "peft", work.model_folder(), update, work.recipe.lora.lora_alpha, card);
      summary["peft"] = {{"folder", "export/peft"}, {"adapters", update.adapters.size()}};
    }
  }
  return nlohmann::json::parse(work.mesh.world.broadcast(summary.dump(), 0));
}

std::string line(const nlohmann::json& summary) {
  std::string text;
  for (const auto& [format, what] : summary.items())
    if (what.is_object()) text += (text.empty() ? "" : ", ") + what["folder"].get<std::string>();
  if (summary.contains("huggingface"))
    text += " (" + std::to_string(summary["huggingface"]["changed"].get<int64_t>()) + " of " +
            std::to_string(summary["huggingface"]["tensors"].get<int64_t>()) + " tensors changed)";
  return text;
}

}  // namespace

Stage export_stage() { return {"export", wanted, settings, run, line, reads}; }

}  // namespace efface
