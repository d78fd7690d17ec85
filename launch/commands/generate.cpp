// efface generate MODEL --prompt TEXT: what the model says.
#include <iostream>
#include <nlohmann/json.hpp>

#include "distributed/error.hpp"
#include "launch/commands/command.hpp"

namespace efface {

void add_generate(CommandLine line) {
  struct Options {
    ModelOptions model;
    std::vector<std::string> prompts;
    std::string file, system;
    int64_t max_new_tokens = 64;
    Sampling sampling;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = line.app.add_subcommand("generate", "What the model answers, greedily or sampled");
  add_model_options(*command, options->model);
  command->add_option("--prompt", options->prompts, "the user's message; may be repeated");
  command->add_option("--file", options->file, "prompts from a file, one a line");
  command->add_option("--system", options->system, "a system message before it");
  command->add_option("--max-new-tokens", options->max_new_tokens, "longest answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI::Option* temperature =
      command
          ->add_option("--temperature", options->sampling.temperature,
                       "sample from softmax(logits / temperature); 0: the most probable token, always")
          ->check(CLI::NonNegativeNumber)
          ->capture_default_str();
  command->add_option("--top-k", options->sampling.top_k, "sample among the k most probable tokens; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->needs(temperature)
      ->capture_default_str();
  command->add_option("--seed", options->sampling.seed, "the same seed gives the same text, on any mesh")
      ->needs(temperature)
      ->capture_default_str();
  command->add_flag("--json", options->json, "one JSON line each: prompt, answer, tokens");
  command->footer(
      "Examples:\n"
      "  efface generate models/smollm2 --prompt 'What is the capital of France?'\n"
      "  efface generate models/smollm2 --template none --prompt 'The capital of France is' --max-new-tokens "
      "5\n"
      "  efface generate models/smollm2 --prompt 'Tell me a story.' --temperature 0.8 --top-k 50 --seed 1");
  command->callback([=] {
    line.action = [=] {
      std::vector<std::string> prompts = options->prompts;
      if (!options->file.empty())
        for (const auto& prompt : read_lines(options->file)) prompts.push_back(prompt);
      if (prompts.empty())
        throw Error(ErrorClass::usage, "there is no prompt", "give --prompt TEXT or --file FILE");
      const LoadedModel loaded = load_model(options->model, line.world);
      std::vector<std::vector<int64_t>> ids;
      for (const auto& prompt : prompts) {
        std::vector<ChatMessage> messages;
        if (!options->system.empty()) messages.push_back({"system", options->system});
        messages.push_back({"user", prompt});
        ids.push_back(loaded.chat.name() == "none"
                          ? loaded.tokenizer.encode(prompt, true)
                          : loaded.tokenizer.encode(loaded.chat.render(messages, true)));
      }
      const at::NoGradGuard no_grad;
      const auto answers = loaded.model.generate(ids, options->max_new_tokens, options->sampling);
      if (!line.is_root()) return;
      for (size_t i = 0; i < answers.size(); ++i) {
        const std::string text = loaded.tokenizer.decode(answers[i], true);
        if (options->json)
          std::cout << nlohmann::json{{"prompt", prompts[i]}, {"answer", text}, {"tokens", answers[i]}}.dump()
                    << "\n";
        else
          std::cout << text << "\n";
      }
    };
  });
}

}  // namespace efface
