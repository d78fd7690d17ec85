// efface validate RECIPE: everything that can be known without computing, and what training rows look like.

#include <iostream>

#include "core/model/config.hpp"
#include "distributed/error.hpp"
#include "launch/commands/command.hpp"
#include "recipes/preflight.hpp"
#include "recipes/progress.hpp"
#include "recipes/recipe.hpp"
#include "recipes/training_rows.hpp"

namespace efface {
namespace {

/// The prompt as it is, the labels in colour (or between brackets where there is no terminal).
void print_row(const std::string& title, const Tokenizer& tokenizer, const TokenRow& row) {
  const bool colour = output_is_terminal();
  const auto middle = row.ids.begin() + row.prompt_length;
  std::cout << "\n--- " << title << ": " << row.ids.size() << " tokens, " << row.labels()
            << " of them labels\n"
            << tokenizer.decode({row.ids.begin(), middle}) << (colour ? "\033[32m" : "[[")
            << tokenizer.decode({middle, row.ids.end()}) << (colour ? "\033[0m" : "]]") << "\n";
}

void print_examples(const Recipe& recipe, const RunData& data, const Tokenizer& tokenizer,
                    const ChatTemplate& chat) {
  const RowMaker maker{recipe, tokenizer, chat};
  if (!data.forget.empty()) {
    const Record& first = data.forget.front();
    if (is_question(first))
      print_row("forget", tokenizer, maker.answer(first));
    else
      print_row("forget", tokenizer, maker.windows({first.text}, recipe.train.text_window).at(0));
    if (!first.safe_response.empty()) print_row("safe", tokenizer, maker.safe(first, first.question));
  }
  if (!data.retain.empty() && is_question(data.retain.front()))
    print_row("retain", tokenizer, maker.answer(data.retain.front()));
  else if (!data.text_retain.empty())
    print_row("text", tokenizer, maker.windows({data.text_retain.front()}, recipe.train.text_window).at(0));
}

void print_counts(const Recipe& recipe, const RunData& data, const ModelConfig& config) {
  std::cout << "recipe   " << recipe.file.string() << ": " << recipe.method << ", " << recipe.train.steps
            << " steps\n"
            << "model    " << recipe.model.path.string() << ": " << config.layers << " layers, width "
            << config.hidden_size << ", " << recipe.model.dtype << "\n"
            << "data     " << data.forget.size() << " to forget, " << data.retain.size() << " to retain, "
            << data.neighbours.size() << " neighbours, " << data.same_relation.size()
            << " of the same relation\n";
  for (const auto& [name, records] : data.probes)
    std::cout << "probe    " << name << ": " << records.size() << " questions\n";
  for (const auto& [role, count] : rows_per_step(recipe, *method_without_window(recipe)))
    std::cout << "rows     " << count << " " << role_name(role) << " a step\n";
  std::cout << "results  " << recipe.output.folder.string() << "\n";
}

void validate(const Recipe& recipe) {
  const ModelConfig config = read_model_config(recipe.model.path);
  if (recipe.parallel.tensor > 1) check_tensor_parallel(config, static_cast<int>(recipe.parallel.tensor));
  const Tokenizer tokenizer = Tokenizer::load(recipe.model.path);
  const ChatTemplate chat = recipe.model.chat_template == "auto"
                                ? ChatTemplate::detect(recipe.model.path)
                                : ChatTemplate::named(recipe.model.chat_template);
  const RunData data = read_run_data(recipe);
  const auto warnings = check_before_work(recipe, config, {recipe, tokenizer, chat}, data);
  print_counts(recipe, data, config);
  print_examples(recipe, data, tokenizer, chat);
  std::cout << "\n";
  for (const auto& warning : warnings) std::cout << "warning: " << warning << "\n";
  std::cout << "the recipe is right\n";
}

}  // namespace

void add_validate(CommandLine line) {
  struct Options {
    std::filesystem::path recipe;
    std::vector<std::string> overrides;
    bool reference = false, keys = false, effective = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      line.app.add_subcommand("validate", "Check a recipe and show three of its training rows");
  command->add_option("RECIPE", options->recipe, "a recipe (YAML)");
  command->add_option("OVERRIDES", options->overrides, "key.sub=value after the recipe");
  command->add_flag("--effective", options->effective, "print the recipe with every default filled in");
  command->add_flag("--keys", options->keys, "list every key a recipe may have");
  command->add_flag("--reference", options->reference, "print docs/recipe.md");
  command->footer(
      "Reads the recipe, its data files, the model's config and tokenizer, but no weights. In the rows "
      "shown, what is\n"
      "trained on is green, or between [[ ]] where there is no terminal.\n\n"
      "Examples:\n"
      "  efface validate recipes/configs/quickstart-nsru.yaml model=models/smollm2\n"
      "  efface validate --keys | grep nullspace");
  command->callback([=] {
    line.action = [=] {
      if (!line.is_root()) return;
      if (options->reference) std::cout << recipe_reference();
      if (options->keys) std::cout << recipe_help();
      if (options->reference || options->keys) return;
      if (options->recipe.empty())
        throw Error(ErrorClass::usage, "there is no recipe", "efface validate RECIPE");
      const Recipe recipe = read_recipe(options->recipe, options->overrides);
      if (options->effective)
        std::cout << effective_recipe(recipe);
      else
        validate(recipe);
    };
  });
}

}  // namespace efface
