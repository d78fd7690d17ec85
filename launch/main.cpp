// The program. MPI lives as long as main; a failure anywhere is one line and the end of every rank.
#include <filesystem>
#include <iostream>

#include "distributed/error.hpp"
#include "distributed/job.hpp"
#include "distributed/memory.hpp"
#include "launch/commands/command.hpp"

namespace {

using namespace efface;

const char kDescription[] =
    "efface: make a large language model forget named knowledge and keep the rest.\n\n"
    "First steps:\n"
    "  efface doctor                                          is this machine ready?\n"
    "  efface import model.gguf models/mine                   a Hugging Face folder from a GGUF\n"
    "  efface validate recipes/configs/quickstart-nsru.yaml   check a recipe and see three training rows\n"
    "  efface run recipes/configs/quickstart-nsru.yaml        run it (the same command again goes on)\n"
    "  mpirun -n 2 efface run recipe.yaml parallel.tensor=1   the same on two ranks, with an override\n";

const char kFooter[] =
    "Exit codes: 0 done, 2 usage, 3 recipe, 4 data, 5 model, 6 storage, 7 numeric, 8 communication,\n"
    "75 interrupted (run the same command again). `efface COMMAND --help` has examples of each command.";

/// LibTorch's messages go on with a stack.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

/// Returns the exit code of what was asked of the command line alone (help, a mistake), or -1 to go on.
int parse(CLI::App& app, int argc, char** argv, bool is_root) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    if (is_root) std::cout << app.help();
    return 0;
  } catch (const CLI::CallForVersion& version) {
    if (is_root) std::cout << version.what() << "\n";
    return 0;
  } catch (const CLI::ParseError& error) {
    if (is_root) std::cerr << "efface: error: " << error.what() << " — `efface --help` shows what there is\n";
    return static_cast<int>(ErrorClass::usage);
  }
  return -1;
}

int run(int argc, char** argv, const Communicator& world) {
  CLI::App app(kDescription, "efface");
  app.set_version_flag("--version", "efface " EFFACE_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  std::function<void()> action;
  const CommandLine line{app, world, action};
  for (const auto add : {add_run, add_validate, add_score, add_generate, add_tokenize, add_runs, add_inspect,
                         add_doctor, add_import})
    add(line);
  const int code = parse(app, argc, argv, world.rank() == 0);
  if (code >= 0) return code;
  action();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  keep_freed_memory();
  MpiSession session(&argc, &argv);
  const Communicator world = session.world();
  const Job job(world);
  try {
    return run(argc, argv, world);
  } catch (const Error& error) {
    return job.fail(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return job.fail("out of memory", static_cast<int>(ErrorClass::numeric));
  } catch (const std::filesystem::filesystem_error& error) {
    return job.fail(error.what(), static_cast<int>(ErrorClass::storage));
  } catch (const std::exception& error) {
    return job.fail(first_line(error.what()), 1);
  }
}
