// What the stages of a run share: the recipe, the ranks, the folder, the data, and the model, read when first
// needed.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/model/transformer.hpp"
#include "core/storage/run_directory.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"
#include "core/unlearn/method.hpp"
#include "recipes/progress.hpp"
#include "recipes/recipe.hpp"
#include "recipes/run_data.hpp"
#include "recipes/training_rows.hpp"

namespace efface {

class Workspace {
 public:
  Workspace(const Recipe& recipe, const Mesh& mesh, RunDirectory& run, ProgressLine& progress);

  const Recipe& recipe;
  const Mesh& mesh;
  RunDirectory& run;
  ProgressLine& progress;
  const RunData data;

  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const ChatTemplate& chat() const { return chat_; }
  RowMaker rows() const { return {recipe, tokenizer_, chat_}; }

  /// The folder of the model that is unlearned: the given one, or what `finetune` wrote.
  const std::filesystem::path& model_folder() const { return model_folder_; }
  void use_model_folder(const std::filesystem::path& folder);
  /// Identifies its weights, the dtype and the chat form in the keys of all that depends on them.
  const nlohmann::json& model_key() const { return model_key_; }
  /// That model, unchanged.
  Transformer& model();
  /// A stage that changes the model takes it away: the next model() reads it again.
  Transformer take_model();
  void release_model() { model_.reset(); }

  /// Layers a window method trains: train.layers, else the trace's choice. Empty for other methods.
  LayerWindow window() const;
  std::unique_ptr<Method> method() const;
  /// Modules that train.
  std::vector<ModuleId> trained_modules() const;
  /// Are a covariance and bases computed? Without `nullspace.projection: none`: yes, though
  /// `nullspace.point: none` trains unprojected; its leak is then measured all the same.
  bool has_subspace() const;
  bool projects() const;

 private:
  std::filesystem::path model_folder_;
  ModelConfig config_;
  Tokenizer tokenizer_;
  ChatTemplate chat_;
  nlohmann::json model_key_;
  std::optional<Transformer> model_;
};

/// One stage: what it depends on, what it does, and how its line reads. A stage without `wanted` is skipped.
/// Its result is taken up again while its version, its settings, and those of all it reads are the same.
struct Stage {
  std::string name;
  std::function<bool(const Workspace&)> wanted;
  /// What it takes from the recipe, the data and the model. What `finetune` and `trace` decide stands here
  /// too: the model folder's identity, the layers that train.
  std::function<nlohmann::json(const Workspace&)> settings;
  std::function<nlohmann::json(Workspace&)> run;                   ///< the summary; the same on every rank
  std::function<std::string(const nlohmann::json& summary)> line;  ///< without the stage's name
  /// Earlier stages whose results it reads in this run.
  std::function<std::vector<std::string>(const Workspace&)> reads = [](const Workspace&) {
    return std::vector<std::string>();
  };
  int version = 1;  ///< raised when the stage would compute something else from the same settings
};

Stage finetune_stage();
Stage trace_stage();
Stage before_stage();
Stage covariance_stage();
Stage nullspace_stage();
Stage answers_stage();
Stage unlearn_stage();
Stage constraint_stage();
Stage evaluate_stage();
Stage export_stage();

/// Consecutive rows in groups of about `tokens` tokens, at least one row each.
std::vector<std::vector<TokenRow>> split_rows(const std::vector<TokenRow>& rows, int64_t tokens);

}  // namespace efface
