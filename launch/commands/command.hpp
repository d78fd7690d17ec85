// What every command shares: how it is added to the command line, and how it gets a model.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/model/transformer.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"
#include "distributed/communicator.hpp"
#include "distributed/mesh.hpp"

namespace efface {

/// A command adds its subcommand and, when it is the one asked for, sets `action`, which every rank then
/// runs.
struct CommandLine {
  CLI::App& app;
  Communicator world;
  std::function<void()>& action;

  bool is_root() const { return world.rank() == 0; }
};

void add_run(CommandLine line);
void add_runs(CommandLine line);
void add_validate(CommandLine line);
void add_score(CommandLine line);
void add_generate(CommandLine line);
void add_tokenize(CommandLine line);
void add_inspect(CommandLine line);
void add_doctor(CommandLine line);
void add_import(CommandLine line);

struct ModelOptions {
  std::filesystem::path folder;
  std::string chat_template = "auto";
  std::string dtype = "fp32";
  std::string device = "cpu";
  int tensor = 1;
};
/// MODEL --template --dtype --tensor --device
void add_model_options(CLI::App& command, ModelOptions& options);

struct LoadedModel {
  Mesh mesh;
  Transformer model;
  Tokenizer tokenizer;
  ChatTemplate chat;
};
/// Sets the threads of this rank, makes the mesh, reads the model. Collective.
LoadedModel load_model(const ModelOptions& options, const Communicator& world);

/// The lines of a file ("-": standard input), without their line ends (LF or CRLF). Throws Error(data).
std::vector<std::string> read_lines(const std::string& file);

}  // namespace efface
