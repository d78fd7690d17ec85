// efface import FILE.gguf FOLDER: a Hugging Face folder from a GGUF.
#include <iostream>

#include "core/storage/gguf.hpp"
#include "launch/commands/command.hpp"

namespace efface {

void add_import(CommandLine line) {
  struct Options {
    std::filesystem::path file, folder;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = line.app.add_subcommand("import", "A Hugging Face folder from a GGUF file");
  command->add_option("FILE", options->file, "model.gguf: Llama architecture; Q4_1, Q8_0 or F32 blocks")
      ->required();
  command
      ->add_option("FOLDER", options->folder,
                   "the folder to write: config.json, model.safetensors, tokenizer.json")
      ->required();
  command->footer("Example:\n  efface import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2");
  command->callback([=] {
    line.action = [=] {
      if (!line.is_root()) return;
      import_gguf(options->file, options->folder);
      std::cout << "wrote " << options->folder.string() << "\n";
    };
  });
}

}  // namespace efface
