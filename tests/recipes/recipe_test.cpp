// What a recipe means: defaults, shorthands, overrides, paths, and the pages made from its table.
#include "recipes/recipe.hpp"

#include <gtest/gtest.h>

#include "core/storage/run_directory.hpp"
#include "recipes/schema.hpp"

namespace efface {
namespace {

const std::filesystem::path kRoot = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
const std::string kGood = "model: m\ndata:\n  forget: f.jsonl\n  retain: sub/r.jsonl\n";

TEST(Recipe, PathsAreRelativeToItsFolderAndThoseOfOverridesToTheWorkingDirectory) {
  const Recipe recipe = parse_recipe(kGood, "/a/b/r.yaml", {"data.forget=x.jsonl"});
  EXPECT_EQ(recipe.model.path, "/a/b/m");
  EXPECT_EQ(recipe.data.retain.file, "/a/b/sub/r.jsonl");
  EXPECT_EQ(recipe.data.forget.file, std::filesystem::current_path() / "x.jsonl");
}

TEST(Recipe, ABareValueOfAGroupIsItsMainKey) {
  const Recipe brief = parse_recipe(kGood, "/a/r.yaml");
  const Recipe full = parse_recipe(
      "model: {path: m}\ndata: {forget: {file: f.jsonl}, retain: {file: sub/r.jsonl}}", "/a/r.yaml");
  EXPECT_EQ(effective_recipe(brief), effective_recipe(full));
}

TEST(Recipe, OverridesWinAndTheLastOfThemMost) {
  const Recipe recipe =
      parse_recipe(kGood + "train: {steps: 3}", "/a/r.yaml", {"train.steps=4", "train.steps=5"});
  EXPECT_EQ(recipe.train.steps, 5);
}

TEST(Recipe, AnOverrideRepairsALineThatIsWrong) {
  const Recipe recipe = parse_recipe(kGood + "train: {steps: many}", "/a/r.yaml", {"train.steps=4"});
  EXPECT_EQ(recipe.train.steps, 4);
}

TEST(Recipe, AnOverriddenRankRuleReplacesTheOther) {
  const Recipe recipe =
      parse_recipe(kGood + "nullspace: {rank: {energy: 0.9}}", "/a/r.yaml", {"nullspace.rank.k=7"});
  EXPECT_EQ(recipe.nullspace.rank_rule, "k");
  EXPECT_EQ(recipe.nullspace.rank_value, 7);
}

TEST(Recipe, AnAutomaticRankHolds95PercentOfHeldOutEnergy) {
  const Recipe recipe =
      parse_recipe(kGood + "nullspace: {rank: auto}", "/a/r.yaml", {"data.text.heldout=/b/text"});
  EXPECT_EQ(recipe.nullspace.rank_rule, "heldout");
  EXPECT_EQ(recipe.nullspace.rank_value, 0.95);
  const Recipe replaced =
      parse_recipe(kGood + "nullspace: {rank: auto}", "/a/r.yaml", {"nullspace.rank.energy=0.8"});
  EXPECT_EQ(replaced.nullspace.rank_rule, "energy");
  EXPECT_EQ(replaced.nullspace.rank_value, 0.8);
}

TEST(Recipe, AnOverrideMayBeAWholeGroup) {
  const Recipe recipe = parse_recipe(kGood, "/a/r.yaml", {"train={steps: 9, rows: {forget: 2, safe: 3}}"});
  EXPECT_EQ(recipe.train.steps, 9);
  EXPECT_EQ(recipe.train.rows.at("safe"), 3);
}

TEST(Recipe, AGroupGivenInBracesReplacesTheGroup) {
  const Recipe recipe = parse_recipe(kGood + "method_args: {npo_beta: 3}\ntrain: {steps: 3, seed: 4}",
                                     "/a/r.yaml", {"method_args={}", "train={seed: 5}"});
  EXPECT_TRUE(recipe.method_args.empty());
  EXPECT_EQ(recipe.train.steps, Recipe().train.steps);
  EXPECT_EQ(recipe.train.seed, 5);
}

TEST(Recipe, AliasesAreOrdinaryValues) {
  const Recipe recipe = parse_recipe(
      "model: m\ndata:\n  forget: {file: f, columns: &c {question: q}}\n  retain: {file: r, columns: *c}",
      "/a/r.yaml");
  EXPECT_EQ(recipe.data.retain.columns.question, "q");
}

TEST(Recipe, TheEffectiveRecipeReadsBackAsItself) {
  const std::string text =
      kGood +
      "method: NSRU\nmethod_args: {npo_beta: 0.5, suppression: ga}\n"
      "nullspace: {rank: {relative: 0.01}, projection: sgp}\n"
      "train: {rows: {forget: 4, safe: 4, retain: 2}, layers: [1, 2], first_token_weight: {safe: 3}}\n"
      "safe_response: {source: template, template: '{a}: {subject}', parts: {a: 'About'}}\n"
      "evaluate: {probes: {near: {file: n.jsonl, max: 3}}}\n";
  const std::string effective = effective_recipe(parse_recipe(text, "/a/r.yaml"));
  EXPECT_EQ(effective_recipe(parse_recipe(effective, "/elsewhere/s.yaml")), effective);
}

TEST(Recipe, EveryKeyOfTheTableHasOneLineOfHelpAndAGroup) {
  for (const auto& key : schema()) {
    EXPECT_FALSE(key.help.empty()) << key.path;
    EXPECT_EQ(key.help.find('\n'), std::string::npos) << key.path;
    EXPECT_NE(recipe_help().find(key.path.find(".columns.") == std::string::npos ? key.path : "model.path"),
              std::string::npos);
  }
}

TEST(Recipe, TheReferencePageIsThatOfTheTable) {
  EXPECT_EQ(read_text_file(kRoot / "docs/recipe.md"), recipe_reference())
      << "efface validate --reference > docs/recipe.md";
}

TEST(Recipe, TheReadyRecipesAreRight) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kRoot / "recipes/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_NO_THROW(read_recipe(entry.path())) << entry.path();
    ++found;
  }
  EXPECT_GE(found, 6);
}

}  // namespace
}  // namespace efface
