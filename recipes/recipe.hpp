// What a run is: a YAML file, read through one table (schema.cpp), into this value. Every default stands
// here; every key's type, range and one-line help stand in the table.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/model/module.hpp"
#include "core/text/dataset.hpp"

namespace efface {

/// Records of one file. Records [skip, skip + max) are used; max = 0: all that are left.
struct DataSource {
  std::filesystem::path file;
  DataColumns columns;
  int64_t skip = 0;
  int64_t max = 0;
  int64_t repeat = 1;  ///< training: the source counts this many times in the mix

  bool given() const { return !file.empty(); }
};

struct ModelSection {
  std::filesystem::path path;
  std::string chat_template = "auto";
  std::string dtype = "fp32";
};

struct DataSection {
  DataSource forget, retain, neighbours, same_relation;
  std::filesystem::path text_covariance, text_heldout, text_retain, text_perplexity;
};

/// Where a forget question's safe answer comes from: the record's own column, a template, a file of lines.
struct SafeResponseSection {
  std::string source = "column";
  std::string text_template = "{acknowledge} {decline} {redirect}";
  std::map<std::string, std::string> parts;
  std::filesystem::path file;
};

struct ParallelSection {
  int64_t tensor = 1, data = 0, threads = 0;
  double timeout = 1800;
  std::string device = "cpu";
};

struct NullspaceSection {
  std::string projection = "hard";
  std::string point = "update";
  std::string rank_rule = "energy";
  double rank_value = 0.95;
  double leak = 0.01, sgp_scale = 10, ridge_shift = 0;
  bool protect_sink = true, skip_sinks = true;
  double norm_cap = 0;
  std::vector<std::string> capped = {"down"};
  int64_t max_tokens = 45000, max_heldout_tokens = 8000, window = 256;
  double memory = 0;  // GiB a rank for covariances; 0: four fifths of what is free
  double save_every = 10;  // minutes; 0: never
  bool chat_rows = true;
  std::string solver = "auto";
};

struct LoraSection {
  int64_t r = 16;
  double lora_alpha = 32;
  std::vector<std::string> target_modules = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                             "gate_proj", "up_proj", "down_proj"};
};

struct FinetuneSection {
  int64_t steps = 0, batch_size = 16;
  double learning_rate = 2e-4;
  int64_t warmup_steps = 5;
  int64_t r = 0;
  double lora_alpha = 32;
};

struct TraceSection {
  std::string when = "auto";
  int64_t draws = 10, max_facts = 32;
  double noise_scale = 3;
  int64_t restore_window = 0, unlearning_window = 3;
  std::vector<int64_t> exclude = {0};
};

struct TrainSection {
  int64_t steps = 34;
  int64_t batch_size = 0;  ///< 0: rows below, or 16
  std::map<std::string, int64_t> rows;
  std::map<std::string, double> first_token_weight;
  std::vector<std::string> safe_wordings = {"question", "paraphrases"};
  std::vector<std::string> forget_wordings = {"question"};
  std::string forget_tokens = "row";
  std::string text_loss = "kl";
  int64_t text_window = 128, answer_tokens = 24;
  double learning_rate = 1e-3;
  int64_t warmup_steps = 5;
  double decay = 0.3, weight_decay = 0, max_grad_norm = 0;
  double initial_noise = -1;  ///< -1: the method's own
  int64_t seed = 0;
  int64_t checkpoint_every = 0, checkpoints_kept = 2;
  double checkpoint_minutes = 1;
  std::string on_nonfinite = "stop";
  std::vector<int64_t> layers;
  int64_t max_tokens_per_pass = 0;
};

struct EvaluateSection {
  bool before = true, after = true;
  std::map<std::string, DataSource> probes;
  int64_t samples = 6, sample_tokens = 32, tokens_per_pass = 4096;
  int64_t perplexity_tokens = 8000;
  std::filesystem::path tofu, tofu_retain_log, wmdp, mmlu;
  std::string tofu_split = "forget10";
  int64_t benchmark_max = 0;
};

struct OutputSection {
  std::filesystem::path folder;
  std::vector<std::string> formats = {"huggingface", "peft"};
  std::string dtype = "source";
};

struct Recipe {
  std::filesystem::path file;
  ModelSection model;
  DataSection data;
  SafeResponseSection safe_response;
  ParallelSection parallel;
  NullspaceSection nullspace;
  std::string method = "NSRU";
  std::map<std::string, double> method_args;
  std::map<std::string, std::string> method_choices;
  LoraSection lora;
  FinetuneSection finetune;
  TraceSection trace;
  TrainSection train;
  EvaluateSection evaluate;
  OutputSection output;
  /// Key -> "file:line" or "override 'key=value'", of every key that was given.
  std::map<std::string, std::string> where;

  /// "recipe.yaml:12: train.steps", for errors found after reading.
  std::string locate(const std::string& key) const;
};

/// Reads the file, then the overrides ("train.steps=5", values are YAML). Paths in the file are relative to
/// its folder, those of overrides to the working directory. Throws Error(recipe) naming file, line and key
/// for what is unknown (with the nearest right key), mistyped, out of range, missing, or contradictory.
Recipe read_recipe(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
Recipe parse_recipe(const std::string& text, const std::filesystem::path& file,
                    const std::vector<std::string>& overrides = {});

/// The whole recipe with every default filled in, as YAML that read_recipe() reads.
std::string effective_recipe(const Recipe& recipe);

/// docs/recipe.md.
std::string recipe_reference();
/// The same table as plain text for a terminal: one line a key.
std::string recipe_help();

}  // namespace efface
