// efface import FILE.gguf FOLDER: a Hugging Face folder from a GGUF.
#include <iostream>

#include "core/storage/gguf.hpp"
#include "core/storage/gguf_blocks.hpp"
#include "launch/commands/command.hpp"

namespace efface {

void add_import(CommandLine line) {
  struct Options {
    std::filesystem::path file, folder;
    std::string dtype = "fp32", chat_template = "own";
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = line.app.add_subcommand("import", "A Hugging Face folder from a GGUF file");
  command
      ->add_option("FILE", options->file,
                   "model.gguf: Llama architecture; tensors " + readable_gguf_tensor_types())
      ->required();
  command
      ->add_option("FOLDER", options->folder,
                   "the folder to write: config.json, model.safetensors, tokenizer.json")
      ->required();
  command->add_option("--dtype", options->dtype, "of the weights written; fp32 keeps what the file says")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->capture_default_str();
  command
      ->add_option("--chat-template", options->chat_template,
                   "own: the file's; chatml: ChatML without a system line of its own")
      ->check(CLI::IsMember({"own", "chatml"}))
      ->capture_default_str();
  command->footer("Example:\n  efface import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2");
  command->callback([=] {
    line.action = [=] {
      if (!line.is_root()) return;
      GgufImportOptions how;
      how.dtype = options->dtype == "bf16"   ? at::kBFloat16
                  : options->dtype == "fp16" ? at::kHalf
                                             : at::kFloat;
      if (options->chat_template == "chatml") how.chat_template = GgufChatTemplate::chatml;
      import_gguf(options->file, options->folder, how);
      std::cout << "wrote " << options->folder.string() << "\n";
    };
  });
}

}  // namespace efface
