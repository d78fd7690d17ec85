// What README shows must work as it stands.
#include <gtest/gtest.h>

#include <string>

#include "core/storage/run_directory.hpp"
#include "recipes/recipe.hpp"

namespace efface {
namespace {

const std::filesystem::path kRoot = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();

std::vector<std::string> yaml_blocks(const std::string& markdown) {
  const std::string fence = "```", opening = fence + "yaml\n";
  std::vector<std::string> blocks;
  for (size_t at = markdown.find(opening); at != std::string::npos; at = markdown.find(opening, at)) {
    at += opening.size();
    blocks.push_back(markdown.substr(at, markdown.find(fence, at) - at));
  }
  return blocks;
}

TEST(Readme, ItsRecipeIsRight) {
  const auto blocks = yaml_blocks(read_text_file(kRoot / "README.md"));
  ASSERT_EQ(blocks.size(), 1u);
  const Recipe recipe = parse_recipe(blocks[0], "/a/recipe.yaml", {"parallel.tensor=2", "train.steps=50"});
  EXPECT_EQ(recipe.data.text_covariance, "/a/general.txt");
  EXPECT_EQ(recipe.train.steps, 50);
}

}  // namespace
}  // namespace efface
