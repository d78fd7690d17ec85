// efface tokenize MODEL FILE: ids of each line.
#include <iostream>
#include <nlohmann/json.hpp>

#include "launch/commands/command.hpp"

namespace efface {

void add_tokenize(CommandLine line) {
  struct Options {
    std::filesystem::path folder;
    std::string file;
    bool special = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = line.app.add_subcommand("tokenize", "Token ids of each line of a file");
  command->add_option("MODEL", options->folder, "folder with tokenizer.json")->required();
  command->add_option("FILE", options->file, "text, one entry a line; - for standard input")->required();
  command->add_flag("--special", options->special, "also add what the tokenizer adds by itself (BOS, ...)");
  command->footer(
      "Prints one JSON array a line.\n\nExample:\n  echo 'Hello world' | efface tokenize models/smollm2 -");
  command->callback([=] {
    line.action = [=] {
      if (!line.is_root()) return;
      const Tokenizer tokenizer = Tokenizer::load(options->folder);
      for (const auto& text : read_lines(options->file))
        std::cout << nlohmann::json(tokenizer.encode(text, options->special)).dump() << "\n";
    };
  });
}

}  // namespace efface
