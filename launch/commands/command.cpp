#include "launch/commands/command.hpp"

#include <fstream>
#include <iostream>

#include "distributed/error.hpp"
#include "distributed/threads.hpp"

namespace efface {

void add_model_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option("MODEL", options.folder, "Hugging Face folder: config.json, safetensors, tokenizer.json")
      ->required();
  std::string templates = "chat template: auto";
  for (const auto& name : ChatTemplate::names()) templates += ", " + name;
  command.add_option("--template", options.chat_template, templates)->capture_default_str();
  command.add_option("--dtype", options.dtype, "what the model is computed in")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command.add_option("--tensor", options.tensor, "ranks that share each tensor; the others share the rows")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--device", options.device, "where the model lives")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
}

LoadedModel load_model(const ModelOptions& options, const Communicator& world) {
  const ThreadChoice threads = set_threads(world);
  if (world.rank() == 0 && !threads.warning.empty())
    std::cerr << "efface: warning: " << threads.warning << "\n";
  Mesh mesh = make_mesh(world, options.tensor, 0, options.device == "cuda" ? at::kCUDA : at::kCPU);
  TransformerOptions transformer;
  transformer.dtype = options.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  Transformer model = Transformer::load(options.folder, mesh, transformer);
  Tokenizer tokenizer = Tokenizer::load(options.folder);
  ChatTemplate chat = options.chat_template == "auto" ? ChatTemplate::detect(options.folder)
                                                      : ChatTemplate::named(options.chat_template);
  return {mesh, std::move(model), std::move(tokenizer), std::move(chat)};
}

std::vector<std::string> read_lines(const std::string& file) {
  std::ifstream stream;
  if (file != "-") {
    stream.open(file, std::ios::binary);
    if (!stream) throw Error(ErrorClass::data, file + ": cannot be read");
  }
  std::istream& input = file == "-" ? std::cin : stream;
  std::vector<std::string> lines;
  for (std::string line; std::getline(input, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

}  // namespace efface
