#include "recipes/schema.hpp"

#include "core/text/chat_template.hpp"
#include "core/unlearn/method.hpp"
#include "recipes/schema_values.hpp"

namespace efface {
namespace {

using namespace schema_values;

#define EFFACE_MEMBER(expression)                    \
  [](Recipe & r, const std::string& name) -> auto& { \
    (void)name;                                      \
    return r.expression;                             \
  }

using SourceOf = std::function<DataSource&(Recipe&, const std::string& name)>;

void add_source(std::vector<SchemaKey>& keys, const std::string& at, const std::string& what, bool trains,
                const SourceOf& source) {
  keys.push_back(path(
      at + ".file", "file",
      what, [source](Recipe & r, const std::string& n) -> auto& { return source(r, n).file; }));
  keys.push_back(integer(
      at + ".skip", at_least(0),
      "records left out at the file's beginning", [source](Recipe & r, const std::string& n) -> auto& {
        return source(r, n).skip;
      }));
  keys.push_back(integer(
      at + ".max", at_least(0),
      "records used after those; 0: all", [source](Recipe & r, const std::string& n) -> auto& {
        return source(r, n).max;
      }));
  if (trains)
    keys.push_back(integer(
        at + ".repeat", between(1, 100),
        "how many times the source counts in the mix", [source](Recipe & r, const std::string& n) -> auto& {
          return source(r, n).repeat;
        }));
  const std::pair<const char*, std::string DataColumns::*> columns[] = {
      {"question", &DataColumns::question},           {"answer", &DataColumns::answer},
      {"answer_prefix", &DataColumns::answer_prefix}, {"paraphrases", &DataColumns::paraphrases},
      {"rewordings", &DataColumns::rewordings},       {"bare_prompt", &DataColumns::bare_prompt},
      {"safe_response", &DataColumns::safe_response}, {"subject", &DataColumns::subject},
      {"messages", &DataColumns::messages},           {"text", &DataColumns::text}};
  for (const auto& [column, member] : columns)
    keys.push_back(text(
        at + ".columns." + column, std::string("the column that holds `") + column + "`",
        [ source, member =
          member ](Recipe & r, const std::string& n) -> auto& { return source(r, n).columns.*member; }));
}

void add_data(std::vector<SchemaKey>& keys) {
  add_source(keys, "data.forget", "what is to be forgotten: question and answer, JSON lines or JSON", true,
             EFFACE_MEMBER(data.forget));
  add_source(keys, "data.retain", "what is to be kept: question and answer", true,
             EFFACE_MEMBER(data.retain));
  add_source(keys, "data.neighbours", "training questions close to the topic that stay answered", true,
             EFFACE_MEMBER(data.neighbours));
  add_source(keys, "data.same_relation", "training questions of the forgotten relation about other subjects",
             true, EFFACE_MEMBER(data.same_relation));
  keys.push_back(path("data.text.covariance", "file", "general text whose inputs span the retain subspace",
                      EFFACE_MEMBER(data.text_covariance)));
  keys.push_back(path("data.text.heldout", "file", "text that only judges the subspace; shares no document",
                      EFFACE_MEMBER(data.text_heldout)));
  keys.push_back(path("data.text.retain", "file", "text trained on as retain rows (train.rows.text)",
                      EFFACE_MEMBER(data.text_retain)));
  keys.push_back(path("data.text.perplexity", "file", "text whose perplexity is measured before and after",
                      EFFACE_MEMBER(data.text_perplexity)));
  keys.push_back(choice("safe_response.source", {"column", "template", "file"},
                        "where the safe answer to a forget question comes from",
                        EFFACE_MEMBER(safe_response.source)));
  keys.push_back(text("safe_response.template",
                      "its text; {name} is a part below, or a column of the record such as {subject}",
                      EFFACE_MEMBER(safe_response.text_template)));
  keys.push_back(text("safe_response.parts.*", "a named part of the template",
                      EFFACE_MEMBER(safe_response.parts[name])));
  keys.push_back(path("safe_response.file", "file", "one safe answer a line; each question gets one by seed",
                      EFFACE_MEMBER(safe_response.file)));
}

void add_model_and_machine(std::vector<SchemaKey>& keys) {
  keys.push_back(path("model.path", "folder", "Hugging Face folder: config.json, safetensors, tokenizer.json",
                      EFFACE_MEMBER(model.path)));
  keys.back().required = true;
  std::vector<std::string> templates = {"auto"};
  for (const auto& name : ChatTemplate::names()) templates.push_back(name);
  keys.push_back(choice("model.template", templates, "chat template; auto: recognised from the folder",
                        EFFACE_MEMBER(model.chat_template)));
  keys.push_back(
      choice("model.dtype", {"fp32", "bf16"}, "what the model is computed in", EFFACE_MEMBER(model.dtype)));
  keys.push_back(integer("parallel.tensor", at_least(0), "ranks that share each tensor; 0: chosen",
                         EFFACE_MEMBER(parallel.tensor)));
  keys.push_back(integer("parallel.data", at_least(0),
                         "ranks that share the batch; 0: what is left of the world",
                         EFFACE_MEMBER(parallel.data)));
  keys.push_back(integer("parallel.threads", at_least(0), "threads a rank; 0: cores / ranks on this machine",
                         EFFACE_MEMBER(parallel.threads)));
  keys.push_back(number("parallel.timeout", at_least(0),
                        "seconds without any progress after which the job is ended; 0: never",
                        EFFACE_MEMBER(parallel.timeout)));
  keys.push_back(
      choice("parallel.device", {"cpu", "cuda"}, "where the model lives", EFFACE_MEMBER(parallel.device)));
}

void add_nullspace(std::vector<SchemaKey>& keys) {
  keys.push_back(choice("nullspace.projection", {"hard", "leak", "sgp", "ridge", "none"},
                        "P = I - U diag(w) U^T: hard w = 1 on the retain subspace; the others relax it",
                        EFFACE_MEMBER(nullspace.projection)));
  keys.push_back(
      choice("nullspace.point", {"update", "gradient", "none"},
             "what is projected; gradient is an ablation: it leaves the null space under Adam; none "
             "only measures the leak",
             EFFACE_MEMBER(nullspace.point)));
  const std::pair<const char*, const char*> rules[] = {
      {"energy", "smallest k whose eigenvalues hold this share of the trace"},
      {"threshold", "eigenvalues below this are null (absolute)"},
      {"relative", "eigenvalues below this share of the largest are null"},
      {"heldout", "smallest k that holds this share of the energy of held-out tokens (data.text.heldout)"},
      {"k", "this many directions are retained"}};
  for (const auto& [rule, help] : rules) {
    const std::string name = rule;
    const Range range = name == "k" ? at_least(1) : name == "threshold" ? above(0) : Range{0.0, {}, 1.0, {}};
    SchemaKey key = number("nullspace.rank." + name, range, help, EFFACE_MEMBER(nullspace.rank_value));
    auto set_value = key.set;
    key.set = [set_value, name](Recipe& recipe, const YamlEntry& entry, const std::string& star) {
      set_value(recipe, entry, star);
      recipe.nullspace.rank_rule = name;
    };
    auto show_value = key.show;
    key.show = [show_value, name](const Recipe& recipe) {
      return recipe.nullspace.rank_rule == name ? show_value(recipe) : std::string();
    };
    if (name == "k") key.type = "integer";
    keys.push_back(key);
  }
  SchemaKey automatic = choice("nullspace.rank.auto", {"auto"}, "'nullspace.rank: auto' is {heldout: 0.95}",
                               EFFACE_MEMBER(nullspace.rank_rule));
  automatic.set = [set = automatic.set](Recipe& recipe, const YamlEntry& entry, const std::string& star) {
    set(recipe, entry, star);
    recipe.nullspace.rank_rule = "heldout";
    recipe.nullspace.rank_value = 0.95;
  };
  automatic.show = nullptr;
  keys.push_back(automatic);
  keys.push_back(number("nullspace.leak", between(0, 1), "leak: w = 1 - leak on the retain subspace",
                        EFFACE_MEMBER(nullspace.leak)));
  keys.push_back(number("nullspace.sgp_scale", at_least(0), "sgp: a in w = min(1, (a+1) l / (a l + mean l))",
                        EFFACE_MEMBER(nullspace.sgp_scale)));
  keys.push_back(number("nullspace.ridge_shift", at_least(0),
                        "ridge: tau in w = l / (l + tau); 0: the mean eigenvalue",
                        EFFACE_MEMBER(nullspace.ridge_shift)));
  keys.push_back(yes_no("nullspace.protect_sink",
                        "hard and leak: where skip_sinks leaves position 0 out, its mean input is one more "
                        "retained direction",
                        EFFACE_MEMBER(nullspace.protect_sink)));
  keys.push_back(yes_no("nullspace.skip_sinks", "leave position 0 of every row out of the covariance",
                        EFFACE_MEMBER(nullspace.skip_sinks)));
  keys.push_back(number("nullspace.norm_cap", at_least(0),
                        "inputs longer than this times the median are scaled down to it; 0: no cap",
                        EFFACE_MEMBER(nullspace.norm_cap)));
  keys.push_back(words("nullspace.capped", {"qkv", "o", "gate_up", "down"}, "the inputs the cap applies to",
                       EFFACE_MEMBER(nullspace.capped)));
  keys.push_back(
      number("nullspace.memory", at_least(0),
             "GiB a rank for covariances; layers beyond it wait their turn, their hidden states on "
             "disk; 0: four fifths of what is free",
             EFFACE_MEMBER(nullspace.memory)));
  keys.push_back(number("nullspace.save_every", at_least(0),
                        "minutes between saves of covariances under way, which a rerun goes on from; 0: none",
                        EFFACE_MEMBER(nullspace.save_every)));
  keys.push_back(integer("nullspace.max_tokens", at_least(16), "retain tokens counted",
                         EFFACE_MEMBER(nullspace.max_tokens)));
  keys.push_back(integer("nullspace.max_heldout_tokens", at_least(0), "held-out tokens counted",
                         EFFACE_MEMBER(nullspace.max_heldout_tokens)));
  keys.push_back(integer("nullspace.window", at_least(2), "tokens a row of general text",
                         EFFACE_MEMBER(nullspace.window)));
  keys.push_back(yes_no("nullspace.chat_rows", "retain questions and answers count too, in the chat form",
                        EFFACE_MEMBER(nullspace.chat_rows)));
  keys.push_back(
      choice("nullspace.solver", {"auto", "lapack", "scalapack", "cholesky"},
             "modules dealt to ranks (lapack), or each spread over all ranks (scalapack); the ridge "
             "projector needs no eigenvectors (cholesky, its `auto`)",
             EFFACE_MEMBER(nullspace.solver)));
}

void add_method(std::vector<SchemaKey>& keys) {
  std::vector<std::string> names;
  for (const auto& method : methods()) names.push_back(method.name);
  keys.push_back(choice("method", names, "how the model is made to forget", EFFACE_MEMBER(method)));
  SchemaKey args;
  args.path = "method_args.*";
  args.type = "number or word";
  args.help = "settings of the method; see the table of methods";
  args.set = [](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    if (!entry.node.IsScalar()) fail(entry, "must be a single value");
    recipe.method_choices[name] = entry.node.Scalar();
  };
  keys.push_back(args);
  keys.push_back(integer("lora.r", at_least(1), "rank of the adapters", EFFACE_MEMBER(lora.r)));
  keys.push_back(
      number("lora.lora_alpha", above(0), "their scale is lora_alpha / r", EFFACE_MEMBER(lora.lora_alpha)));
  keys.push_back(words("lora.target_modules",
                       {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
                       "linear layers that get one", EFFACE_MEMBER(lora.target_modules)));
  keys.push_back(integer("finetune.steps", at_least(0),
                         "learn forget and retain answers first; 0: no finetuning",
                         EFFACE_MEMBER(finetune.steps)));
  keys.push_back(
      integer("finetune.batch_size", at_least(1), "rows a step", EFFACE_MEMBER(finetune.batch_size)));
  keys.push_back(
      number("finetune.learning_rate", above(0), "AdamW's", EFFACE_MEMBER(finetune.learning_rate)));
  keys.push_back(integer("finetune.warmup_steps", at_least(0), "steps of linear warm-up",
                         EFFACE_MEMBER(finetune.warmup_steps)));
  keys.push_back(integer("finetune.r", at_least(0), "adapter rank; 0: all seven linears train whole",
                         EFFACE_MEMBER(finetune.r)));
  keys.push_back(
      number("finetune.lora_alpha", above(0), "adapter scale times r", EFFACE_MEMBER(finetune.lora_alpha)));
  keys.push_back(
      choice("trace.when", {"auto", "always", "never"},
             "causal tracing; auto: when the method trains a window of layers and train.layers is empty",
             EFFACE_MEMBER(trace.when)));
  keys.push_back(integer("trace.draws", at_least(1), "noise draws a fact", EFFACE_MEMBER(trace.draws)));
  keys.push_back(
      integer("trace.max_facts", at_least(1), "forget facts traced", EFFACE_MEMBER(trace.max_facts)));
  keys.push_back(number("trace.noise_scale", above(0), "noise in standard deviations of subject embeddings",
                        EFFACE_MEMBER(trace.noise_scale)));
  keys.push_back(integer("trace.restore_window", at_least(0),
                         "layers restored together; 0: ten of 48, scaled",
                         EFFACE_MEMBER(trace.restore_window)));
  keys.push_back(integer("trace.unlearning_window", at_least(1), "layers the method then trains",
                         EFFACE_MEMBER(trace.unlearning_window)));
  keys.push_back(integers("trace.exclude", "windows with one of these layers are not chosen",
                          EFFACE_MEMBER(trace.exclude)));
}

/// 0 stands for "not given" and is not a value a recipe may have.
void show_unless_zero(SchemaKey& key) {
  key.show = [show = key.show](const Recipe& recipe) {
    const std::string value = show(recipe);
    return value == "0" ? std::string() : value;
  };
}

void add_train(std::vector<SchemaKey>& keys) {
  keys.push_back(integer("train.steps", at_least(1), "optimiser steps", EFFACE_MEMBER(train.steps)));
  keys.push_back(integer("train.batch_size", at_least(1),
                         "global rows a step, dealt evenly to the method's roles; or give train.rows",
                         EFFACE_MEMBER(train.batch_size)));
  show_unless_zero(keys.back());
  const std::pair<const char*, const char*> roles[] = {
      {"forget", "forget question and answer"},
      {"safe", "forget question and safe answer"},
      {"retain", "retain question and answer, next-token loss"},
      {"retain_kl", "retain question and the frozen model's own answer, divergence from it"}};
  for (const auto& [role, help] : roles)
    keys.push_back(integer(
        std::string("train.rows.") + role, at_least(0), std::string("global rows a step: ") + help,
        [role = std::string(role)](Recipe & r, const std::string&) -> auto& { return r.train.rows[role]; }));
  for (auto& key : keys)
    if (key.path.rfind("train.rows.", 0) == 0) show_unless_zero(key);
  keys.push_back(integer("train.rows.text", at_least(0), "global rows a step: windows of data.text.retain",
                         EFFACE_MEMBER(train.rows["text"])));
  show_unless_zero(keys.back());
  for (const auto& [role, help] : roles)
    keys.push_back(number(
        std::string("train.first_token_weight.") + role, above(0),
        "weight of a row's first label against the others' 1",
        [role = std::string(role)](Recipe & r, const std::string&) -> auto& {
          return r.train.first_token_weight.try_emplace(role, 1.0).first->second;
        }));
  keys.push_back(words("train.safe_wordings", {"question", "paraphrases"},
                       "wordings of a forget question that safe rows use",
                       EFFACE_MEMBER(train.safe_wordings)));
  keys.push_back(words("train.forget_wordings", {"question", "paraphrases", "bare"},
                       "forms of a forget fact that forget rows use", EFFACE_MEMBER(train.forget_wordings)));
  keys.push_back(choice("train.forget_tokens", {"row", "subject"},
                        "KUDA and RMU: turn away all tokens of a forget row, or those from its subject on; "
                        "plain text: all",
                        EFFACE_MEMBER(train.forget_tokens)));
  keys.push_back(
      choice("train.text_loss", {"kl", "nll"}, "how text rows are kept", EFFACE_MEMBER(train.text_loss)));
  keys.push_back(
      integer("train.text_window", at_least(2), "tokens a text row", EFFACE_MEMBER(train.text_window)));
  keys.push_back(integer("train.answer_tokens", at_least(1), "longest own answer of a retain_kl row",
                         EFFACE_MEMBER(train.answer_tokens)));
  keys.push_back(number("train.learning_rate", above(0), "AdamW's", EFFACE_MEMBER(train.learning_rate)));
  keys.push_back(integer("train.warmup_steps", at_least(0), "steps of linear warm-up",
                         EFFACE_MEMBER(train.warmup_steps)));
  keys.push_back(number("train.decay", between(0, 1), "share of the steps, at the end, of linear decay to 0",
                        EFFACE_MEMBER(train.decay)));
  keys.push_back(number("train.weight_decay", at_least(0),
                        "on the change of the weights, inside the projection",
                        EFFACE_MEMBER(train.weight_decay)));
  keys.push_back(number("train.max_grad_norm", at_least(0), "gradients longer than this are scaled; 0: never",
                        EFFACE_MEMBER(train.max_grad_norm)));
  keys.push_back(number("train.initial_noise", at_least(0),
                        "seeded noise before step 0, in norms of the weight; default: 1e-3 for KUDA, else 0",
                        EFFACE_MEMBER(train.initial_noise)));
  keys.back().show = [](const Recipe& r) {
    return r.train.initial_noise < 0 ? std::string() : YAML::Dump(YAML::Node(r.train.initial_noise));
  };
  keys.push_back(integer("train.seed", at_least(0),
                         "decides rows, adapters and noise, on any number of ranks",
                         EFFACE_MEMBER(train.seed)));
  keys.push_back(integer("train.checkpoint_every", at_least(0),
                         "steps between checkpoints, beside those by time; 0: none",
                         EFFACE_MEMBER(train.checkpoint_every)));
  keys.push_back(number("train.checkpoint_minutes", at_least(0), "minutes between checkpoints; 0: none",
                        EFFACE_MEMBER(train.checkpoint_minutes)));
  keys.push_back(integer("train.checkpoints_kept", at_least(1), "how many of the newest are kept",
                         EFFACE_MEMBER(train.checkpoints_kept)));
  keys.push_back(choice("train.on_nonfinite", {"stop", "skip"},
                        "a step whose loss or gradient is NaN or Inf: end the run, or skip and count it",
                        EFFACE_MEMBER(train.on_nonfinite)));
  keys.push_back(integers("train.layers", "layers that train; empty: all (adapters), or the traced window",
                          EFFACE_MEMBER(train.layers)));
  keys.push_back(integer("train.max_tokens_per_pass", at_least(0),
                         "tokens a rank computes at once; 0: all rows",
                         EFFACE_MEMBER(train.max_tokens_per_pass)));
}

void add_evaluate_and_output(std::vector<SchemaKey>& keys) {
  keys.push_back(yes_no("evaluate.after", "measure the result", EFFACE_MEMBER(evaluate.after)));
  keys.push_back(yes_no("evaluate.before", "measure the model before too", EFFACE_MEMBER(evaluate.before)));
  add_source(keys, "evaluate.probes.*",
             "questions scored alike; the name is yours (unrelated, unseen, neighbours, ...)", false,
             EFFACE_MEMBER(evaluate.probes[name]));
  keys.push_back(integer("evaluate.samples", at_least(0), "greedy answers shown a group",
                         EFFACE_MEMBER(evaluate.samples)));
  keys.push_back(integer("evaluate.sample_tokens", at_least(1), "their greatest length",
                         EFFACE_MEMBER(evaluate.sample_tokens)));
  keys.push_back(integer("evaluate.tokens_per_pass", at_least(1), "tokens a rank computes at once",
                         EFFACE_MEMBER(evaluate.tokens_per_pass)));
  keys.push_back(integer("evaluate.perplexity_tokens", at_least(0), "tokens of data.text.perplexity used",
                         EFFACE_MEMBER(evaluate.perplexity_tokens)));
  keys.push_back(path("evaluate.tofu", "folder",
                      "TOFU's files: forget10_perturbed.json, retain_perturbed.json, ...",
                      EFFACE_MEMBER(evaluate.tofu)));
  keys.push_back(choice("evaluate.tofu_split", {"forget01", "forget05", "forget10"},
                        "the split that was forgotten", EFFACE_MEMBER(evaluate.tofu_split)));
  keys.push_back(path("evaluate.tofu_retain_log", "file",
                      "TOFU_EVAL.json of the retain-only model, for forget quality",
                      EFFACE_MEMBER(evaluate.tofu_retain_log)));
  keys.push_back(
      path("evaluate.wmdp", "file", "WMDP's four-choice questions (JSON)", EFFACE_MEMBER(evaluate.wmdp)));
  keys.push_back(
      path("evaluate.mmlu", "folder", "MMLU's CSV files, or one of them", EFFACE_MEMBER(evaluate.mmlu)));
  keys.push_back(integer("evaluate.benchmark_max", at_least(0), "questions used of WMDP and of MMLU; 0: all",
                         EFFACE_MEMBER(evaluate.benchmark_max)));
  keys.push_back(path("output.folder", "folder",
                      "the run's folder; default: runs/NAME here, NAME the recipe's",
                      EFFACE_MEMBER(output.folder)));
  keys.push_back(words("output.formats", {"huggingface", "peft"}, "what is exported; [] for nothing",
                       EFFACE_MEMBER(output.formats)));
  keys.push_back(choice("output.dtype", {"source", "fp32"},
                        "of the tensors that changed; fp32 avoids rounding", EFFACE_MEMBER(output.dtype)));
}

#undef EFFACE_MEMBER

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::stringstream stream(path);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  return parts;
}

/// Does `path` begin `pattern` (or is it the whole)? Equal length: it is the key itself.
bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  if (path.size() > pattern.size()) return false;
  for (size_t i = 0; i < path.size(); ++i)
    if (pattern[i] != "*" && pattern[i] != path[i]) return false;
  return true;
}

std::string nearest_path(const std::string& path) {
  const auto wanted = split(path);
  std::string best;
  double best_score = 0.45;  // share of the letters that differ, over all segments
  for (const auto& key : schema()) {
    auto pattern = split(key.path);
    for (size_t length = pattern.size(); length >= 1; --length) {  // the key, then the groups it is in
      pattern.resize(length);
      std::string candidate;
      for (size_t i = 0; i < length; ++i)
        candidate += (i ? "." : "") + (pattern[i] == "*" && i < wanted.size() ? wanted[i] : pattern[i]);
      if (path.rfind(candidate + ".", 0) == 0) continue;  // the group it is already in
      if (pattern.back() == "*" && length == wanted.size()) {
        // A free name fits anything: only a near group makes it a guess.
        const std::string group = candidate.substr(0, candidate.rfind('.')),
                          given = path.substr(0, path.rfind('.'));
        if (edit_distance(group, given) > 2) continue;
      }
      const size_t longest = std::max(candidate.size(), path.size());
      double score = edit_distance(candidate, path) / static_cast<double>(longest);
      // The right last word in the wrong group is a better guess than any misspelling of all of it.
      if (length == pattern.size() && pattern.back() == wanted.back()) score = std::min(score, 0.2);
      if (score < best_score) best_score = score, best = candidate;
    }
  }
  return best;
}

}  // namespace

const std::vector<SchemaKey>& schema() {
  static const std::vector<SchemaKey> keys = [] {
    std::vector<SchemaKey> all;
    add_model_and_machine(all);
    add_data(all);
    add_nullspace(all);
    add_method(all);
    add_train(all);
    add_evaluate_and_output(all);
    for (auto& key : all)
      if (key.path.find('*') != std::string::npos) key.show = nullptr;
    return all;
  }();
  return keys;
}

const std::vector<SchemaSection>& schema_sections() {
  static const std::vector<SchemaSection> sections = {
      {"model", "model.path", "The model, and how it is computed."},
      {"parallel", "", "How ranks share the work. The world is tensor x data ranks, started by mpirun."},
      {"data", "", "The records. JSON lines, a JSON array, or (text) blocks between blank lines."},
      {"safe_response", "safe_response.template", "What the model shall say instead (NSRU)."},
      {"nullspace", "", "The retain subspace, and the projection that keeps updates out of it."},
      {"method", "", "The unlearning method."},
      {"method_args", "", "Its settings, named as OpenUnlearning names them."},
      {"lora", "", "Adapters, for methods that train them. Named as PEFT names them."},
      {"finetune", "", "An optional first stage: teach the model the data (as TOFU does)."},
      {"trace", "", "Causal tracing: which layers hold the knowledge."},
      {"train", "", "The training loop."},
      {"evaluate", "", "What is measured before and after."},
      {"output", "output.folder", "Where results go."},
      {"data.forget", "data.forget.file", ""},
      {"data.retain", "data.retain.file", ""},
      {"data.neighbours", "data.neighbours.file", ""},
      {"data.same_relation", "data.same_relation.file", ""},
      {"evaluate.probes.*", "evaluate.probes.*.file", ""},
      {"nullspace.rank", "nullspace.rank.auto", ""},
  };
  return sections;
}

const SchemaKey* find_schema_key(const std::string& path, std::string* name) {
  const auto parts = split(path);
  for (const auto& key : schema()) {
    const auto pattern = split(key.path);
    if (pattern.size() != parts.size() || !matches(pattern, parts)) continue;
    const auto star = std::find(pattern.begin(), pattern.end(), "*");
    if (name && star != pattern.end()) *name = parts[static_cast<size_t>(star - pattern.begin())];
    return &key;
  }
  return nullptr;
}

PathRules schema_rules() {
  PathRules rules;
  rules.kind = [](const std::string& path) {
    if (find_schema_key(path)) return PathKind::leaf;
    const auto parts = split(path);
    for (const auto& key : schema())
      if (matches(split(key.path), parts)) return PathKind::section;
    return PathKind::unknown;
  };
  rules.shorthand = [](const std::string& path) {
    const auto parts = split(path);
    for (const auto& section : schema_sections()) {
      const auto pattern = split(section.path);
      if (pattern.size() == parts.size() && matches(pattern, parts) && !section.shorthand.empty())
        return path + section.shorthand.substr(section.path.size());
    }
    return std::string();
  };
  rules.nearest = nearest_path;
  return rules;
}

}  // namespace efface
