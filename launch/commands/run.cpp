// efface run RECIPE [key=value ...]
#include "launch/commands/command.hpp"
#include "recipes/pipeline.hpp"
#include "recipes/recipe.hpp"

namespace efface {

void add_run(CommandLine line) {
  struct Options {
    std::filesystem::path recipe;
    std::vector<std::string> overrides;
    PipelineOptions pipeline;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      line.app.add_subcommand("run", "Run a recipe; the same command again goes on where it stopped");
  command->add_option("RECIPE", options->recipe, "a recipe (YAML); ready ones are in recipes/configs")
      ->required();
  command->add_option("OVERRIDES", options->overrides, "key.sub=value after the recipe; the value is YAML");
  std::string names;
  for (const auto& name : stage_names()) names += (names.empty() ? "" : ", ") + name;
  command->add_option("--until", options->pipeline.until, "the last stage to run: " + names)
      ->check(CLI::IsMember(stage_names()));
  command
      ->add_option("--redo", options->pipeline.redo,
                   "stages to do again though they are done, and all that follows from them")
      ->check(CLI::IsMember(stage_names()));
  command->footer(
      "A stage that is done is not done again unless something it depends on changed. A run that was killed "
      "goes on\n"
      "from its last finished stage, and inside `unlearn` from its last checkpoint.\n\n"
      "Examples:\n"
      "  efface run recipes/configs/quickstart-nsru.yaml\n"
      "  efface run recipe.yaml train.steps=10 nullspace.rank.energy=0.9 output.folder=runs/try\n"
      "  mpirun -n 2 --bind-to none efface run recipe.yaml");
  command->callback([=] {
    line.action = [=] {
      options->pipeline.command = "efface run " + options->recipe.string();
      for (const auto& text : options->overrides) options->pipeline.command += " " + text;
      run_pipeline(read_recipe(options->recipe, options->overrides), line.world, options->pipeline);
    };
  });
}

}  // namespace efface
