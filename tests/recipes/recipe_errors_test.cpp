// Every way a recipe can be wrong that we could think of: the message names file, line, key and what would be
// right, and the exit code is that of recipes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "distributed/error.hpp"
#include "recipes/recipe.hpp"

namespace efface {
namespace {

using ::testing::HasSubstr;

struct BadRecipe {
  const char* name;
  const char* text;
  std::vector<std::string> overrides;
  const char* says;
};

void PrintTo(const BadRecipe& bad, std::ostream* out) { *out << bad.name; }

/// A right recipe that each case adds a line to: lines 1-4 are taken.
const std::string kGood = "model: m\ndata:\n  forget: f.jsonl\n  retain: r.jsonl\n";

class RefusesRecipe : public ::testing::TestWithParam<BadRecipe> {};

TEST_P(RefusesRecipe, NamingWhereAndWhat) {
  const BadRecipe& bad = GetParam();
  try {
    parse_recipe(kGood + bad.text, "/tmp/r.yaml", bad.overrides);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_THAT(error.what(), HasSubstr(bad.says));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line";
  }
}

const BadRecipe kBadRecipes[] = {
    // Unknown keys, with the nearest right one.
    {"misspelt_group",
     "nulspace:\n  rank: {energy: 0.9}",
     {},
     "r.yaml:5: unknown key 'nulspace' — did you mean 'nullspace'?"},
    {"misspelt_key",
     "train:\n  setps: 3",
     {},
     "r.yaml:6: unknown key 'train.setps' — did you mean 'train.steps'?"},
    {"misspelt_deep_key",
     "nullspace:\n  rank:\n    enregy: 0.9",
     {},
     "r.yaml:7: unknown key 'nullspace.rank.enregy' — did you mean 'nullspace.rank.energy'?"},
    {"key_of_another_group", "train:\n  r: 8", {}, "did you mean 'lora.r'?"},
    {"peft_name_at_top",
     "lora_alpha: 8",
     {},
     "r.yaml:5: unknown key 'lora_alpha' — did you mean 'lora.lora_alpha'?"},
    {"nothing_near_in_a_right_group",
     "train:\n  qqqqqqqqqq: 1",
     {},
     "unknown key 'train.qqqqqqqqqq' — `efface"},
    {"nothing_near",
     "zzzzzzzz: 1",
     {},
     "unknown key 'zzzzzzzz' — `efface validate --reference` lists every key"},
    {"misspelt_column",
     "evaluate:\n  probes:\n    near:\n      file: x\n      columns: {qestion: q}",
     {},
     "did you mean 'evaluate.probes.near.columns.question'?"},
    {"key_inside_a_value",
     "train:\n  steps:\n    count: 3",
     {},
     "r.yaml:6: 'train.steps' must be an integer, not a group of keys"},
    // Types.
    {"word_for_integer",
     "train:\n  steps: many",
     {},
     "r.yaml:6: 'train.steps' must be an integer, not 'many'"},
    {"fraction_for_integer", "train:\n  steps: 3.5", {}, "'train.steps' must be an integer, not '3.5'"},
    {"huge_integer", "train:\n  steps: 99999999999999999999", {}, "'train.steps' must be an integer"},
    {"list_for_integer", "train:\n  steps: [3]", {}, "'train.steps' must be an integer, not a list"},
    {"word_for_number",
     "train:\n  learning_rate: fast",
     {},
     "'train.learning_rate' must be a number, not 'fast'"},
    {"number_with_unit", "parallel:\n  timeout: 30s", {}, "'parallel.timeout' must be a number, not '30s'"},
    {"not_a_number", "train:\n  learning_rate: nan", {}, "'train.learning_rate' is nan, but must be > 0"},
    {"infinite", "train:\n  learning_rate: inf", {}, "'train.learning_rate' is inf, but must be > 0"},
    {"word_for_switch",
     "nullspace:\n  skip_sinks: maybe",
     {},
     "'nullspace.skip_sinks' must be yes or no, not 'maybe'"},
    {"heldout_rank_without_tokens",
     "nullspace:\n  rank: auto",
     {},
     "'nullspace.rank.auto' needs held-out tokens"},
    {"other_word_for_rank",
     "nullspace:\n  rank: best",
     {},
     "'nullspace.rank.auto' is 'best', but must be one of auto"},
    {"number_for_switch", "nullspace:\n  protect_sink: 2", {}, "must be yes or no, not '2'"},
    {"scalar_for_list",
     "train:\n  layers: 3",
     {},
     "'train.layers' must be a list of integers such as [1, 2, 3], not '3'"},
    {"word_in_integer_list",
     "train:\n  layers: [1, two]",
     {},
     "'train.layers' must be an integer, not 'two'"},
    {"list_in_list",
     "train:\n  safe_wordings: [[question]]",
     {},
     "must be a list of words, not a list inside a list"},
    {"list_for_group", "train: [1, 2]", {}, "r.yaml:5: 'train' is a group of keys (key: value), not a list"},
    {"value_for_group",
     "train: 5",
     {},
     "r.yaml:5: 'train' is a group of keys (key: value), not a single value"},
    {"no_value", "train:\n  steps:", {}, "r.yaml:6: 'train.steps' has no value"},
    {"empty_path", "output:\n  folder: ''", {}, "'output.folder' is empty, but must name a folder"},
    // Ranges.
    {"no_steps", "train:\n  steps: 0", {}, "r.yaml:6: 'train.steps' is 0, but must be >= 1"},
    {"negative_rate",
     "train:\n  learning_rate: -1e-3",
     {},
     "'train.learning_rate' is -0.001, but must be > 0"},
    {"energy_of_one",
     "nullspace:\n  rank: {energy: 1}",
     {},
     "'nullspace.rank.energy' is 1, but must be 0 < x < 1"},
    {"decay_above_one", "train:\n  decay: 1.5", {}, "'train.decay' is 1.5, but must be 0 <= x <= 1"},
    {"negative_layer", "train:\n  layers: [-1]", {}, "'train.layers' is -1, but must be >= 0"},
    {"fractional_k", "nullspace:\n  rank: {k: 3.5}", {}, "'nullspace.rank.k' must be an integer"},
    {"zero_alpha", "lora:\n  lora_alpha: 0", {}, "'lora.lora_alpha' is 0, but must be > 0"},
    // Choices.
    {"unknown_method", "method: NSRV", {}, "r.yaml:5: 'method' is 'NSRV', but must be one of"},
    {"nearest_method", "method: KUDAA", {}, "did you mean 'KUDA'?"},
    {"unknown_projection",
     "nullspace:\n  projection: soft",
     {},
     "must be one of hard, leak, sgp, ridge, none"},
    {"unknown_module", "lora:\n  target_modules: [q_prj]", {}, "did you mean 'q_proj'?"},
    {"unknown_format",
     "output:\n  formats: [gguf]",
     {},
     "'output.formats' is 'gguf', but must be one of huggingface, peft"},
    {"unknown_dtype", "", {"model.dtype=fp16"}, "must be one of fp32, bf16"},
    // The method's own settings.
    {"unknown_argument",
     "method: NSRU\nmethod_args:\n  npo_bta: 1",
     {},
     "r.yaml:7: 'method_args.npo_bta' is not a setting of NSRU — did you mean 'method_args.npo_beta'?"},
    {"argument_of_another_method",
     "method: KUDA\nmethod_args:\n  safe_weight: 1",
     {},
     "'method_args.safe_weight' is not a setting of KUDA"},
    {"argument_not_a_number",
     "method_args:\n  npo_beta: high",
     {},
     "'method_args.npo_beta' must be a number, not 'high'"},
    {"argument_not_a_choice", "method_args:\n  suppression: dpo", {}, "is 'dpo', but must be one of npo"},
    {"argument_list", "method_args:\n  npo_beta: [1]", {}, "must be a single value"},
    // Contradictions.
    {"two_rank_rules",
     "nullspace:\n  rank: {energy: 0.9, k: 3}",
     {},
     "'nullspace.rank.k' is a second rule for the rank beside 'nullspace.rank.energy'"},
    {"rows_and_batch",
     "train:\n  batch_size: 8\n  rows: {forget: 4}",
     {},
     "'train.batch_size' and train.rows are both given"},
    {"text_rows_without_text",
     "train:\n  rows: {text: 1}",
     {},
     "asks for text rows, but there is no 'data.text.retain'"},
    {"warmup_too_long",
     "train:\n  steps: 3\n  warmup_steps: 9",
     {},
     "r.yaml:7: 'train.warmup_steps' is longer than train.steps (3)"},
    {"layers_apart", "train:\n  layers: [1, 3]", {}, "must be neighbours, such as [1, 2, 3]"},
    {"layer_twice", "train:\n  layers: [1, 1]", {}, "names a layer twice"},
    {"file_source_without_file",
     "safe_response:\n  source: file",
     {},
     "is 'file', but there is no 'safe_response.file'"},
    {"window_method_without_layers",
     "method: KUDA\ntrace: {when: never}",
     {},
     "r.yaml:6: 'trace.when' is never, but KUDA needs to know its layers — give 'train.layers'"},
    {"probe_without_file",
     "evaluate:\n  probes:\n    near: {max: 3}",
     {},
     "'evaluate.probes.near' has no file"},
    // The document itself.
    {"key_twice", "train:\n  steps: 3\n  steps: 4", {}, "r.yaml:7: key 'train.steps' is given twice"},
    {"group_twice", "model: n", {}, "r.yaml:5: key 'model' is given twice"},
    {"not_yaml", "train: {steps: 3", {}, "not valid YAML"},
    {"tab_indent", "train:\n\tsteps: 3", {}, "not valid YAML"},
    {"unknown_alias", "train: *nowhere", {}, "not valid YAML"},
    // Overrides.
    {"override_unknown",
     "",
     {"train.stps=5"},
     "override 'train.stps=5': unknown key 'train.stps' — did you mean 'train.steps'?"},
    {"override_type",
     "",
     {"train.steps=five"},
     "override 'train.steps=five': 'train.steps' must be an integer, not 'five'"},
    {"override_range",
     "",
     {"train.steps=-2"},
     "override 'train.steps=-2': 'train.steps' is -2, but must be >= 1"},
    {"override_without_value", "", {"train.steps"}, "override 'train.steps': not of the form key.sub=value"},
    {"override_empty", "", {"train.steps="}, "'train.steps' has no value"},
    {"override_bad_yaml", "", {"train.layers=[1, 2"}, "override 'train.layers=[1, 2': not valid YAML"},
};

INSTANTIATE_TEST_SUITE_P(Table, RefusesRecipe, ::testing::ValuesIn(kBadRecipes),
                         [](const auto& info) { return std::string(info.param.name); });

std::string message_of(const std::string& text) {
  try {
    parse_recipe(text, "/tmp/r.yaml");
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    return error.what();
  }
  return "accepted";
}

TEST(RecipeErrors, WithoutAModelSaysWhatIsMissing) {
  EXPECT_THAT(message_of("train: {steps: 3}\ndata: {retain: r}"),
              HasSubstr("r.yaml: 'model.path' is missing"));
}

TEST(RecipeErrors, AnEmptyFileIsAMissingModel) {
  EXPECT_THAT(message_of(""), HasSubstr("'model.path' is missing"));
}

TEST(RecipeErrors, AListIsNoRecipe) {
  EXPECT_THAT(message_of("- a\n- b"), HasSubstr("r.yaml:1: a recipe is a group of keys"));
}

TEST(RecipeErrors, NothingToRetainIsRefusedUnlessNothingIsProjected) {
  EXPECT_THAT(message_of("model: m\ndata: {forget: f}"), HasSubstr("'nullspace' needs something to retain"));
  EXPECT_EQ(message_of("model: m\ndata: {forget: f}\nnullspace: {projection: none}"), "accepted");
  EXPECT_THAT(message_of("model: m\ndata: {forget: f}\nnullspace: {point: none}"),
              HasSubstr("'nullspace' needs something to retain"))
      << "the leak of an unprojected update is measured on what is retained";
  EXPECT_THAT(message_of("model: m\ndata: {forget: f, retain: r}\nnullspace: {chat_rows: no}"),
              HasSubstr("'nullspace' needs something to retain"));
}

TEST(RecipeErrors, AliasesThatMultiplyAreStoppedBeforeTheyDo) {
  std::string bomb =
      "model: m\ntrain:\n  safe_wordings: &a0 [x, x, x, x, x, x, x, x, x, x]\n  forget_wordings: ";
  std::string nested = "[*a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0]";
  std::string text = "model: m\nmethod_args:\n  a: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "  b" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) text += (j ? ", " : "") + before;
    text += "]\n";
  }
  EXPECT_THAT(message_of(text), HasSubstr("more than 20000 values"));
}

TEST(RecipeErrors, DeepNestingIsRefusedNotRecursedInto) {
  std::string text = "model: m\nmethod_args:\n  a: ";
  EXPECT_THAT(message_of(text + std::string(40, '[') + "x" + std::string(40, ']')),
              HasSubstr("nested deeper than"));
  EXPECT_THAT(message_of(text + std::string(100000, '[')), HasSubstr("r.yaml"));
}

TEST(RecipeErrors, AHugeFileIsRefused) {
  EXPECT_THAT(message_of("model: m\n#" + std::string(2 << 20, 'x')), HasSubstr("larger than 1 MiB"));
}

TEST(RecipeErrors, AMissingFileNamesTheReadyOnes) {
  try {
    read_recipe("/nonexistent/recipe.yaml");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_THAT(error.what(), HasSubstr("/nonexistent/recipe.yaml: no such recipe"));
  }
}

}  // namespace
}  // namespace efface
