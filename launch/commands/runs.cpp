// efface runs [FOLDER]: the run folders below a folder, and how far each is.
#include <iostream>

#include "core/storage/run_directory.hpp"
#include "core/storage/run_lock.hpp"
#include "distributed/error.hpp"
#include "launch/commands/command.hpp"
#include "recipes/pipeline.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;

std::string state_of(const fs::path& run, const nlohmann::json& manifest) {
  if (const std::string owner = lock_owner(run); !owner.empty()) return "in use by " + owner;
  std::string last = "nothing";
  for (const auto& stage : manifest.value("stages", stage_names())) {
    if (!fs::exists(run / stage / "done.json"))
      return (fs::exists(run / stage / "started.json") ? "stopped in " : "stopped before ") + stage;
    last = stage;
  }
  return "done up to " + last;
}

void list_runs(const fs::path& folder) {
  std::vector<fs::path> runs;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (fs::exists(entry.path() / "run.json")) runs.push_back(entry.path());
  if (error) throw Error(ErrorClass::usage, folder.string() + ": cannot be listed: " + error.message());
  std::sort(runs.begin(), runs.end());
  for (const auto& run : runs) {
    const auto manifest = nlohmann::json::parse(read_text_file(run / "run.json"), nullptr, false);
    std::cout << std::left << std::setw(28) << run.filename().string();
    if (!manifest.is_object()) {
      std::cout << "run.json is damaged\n";
      continue;
    }
    std::cout << std::setw(12) << manifest.value("method", "") << std::setw(22)
              << manifest.value("started", "") << state_of(run, manifest) << "\n";
  }
  if (runs.empty()) std::cout << "no runs in " << folder.string() << "\n";
}

}  // namespace

void add_runs(CommandLine line) {
  auto folder = std::make_shared<fs::path>("runs");
  CLI::App* command = line.app.add_subcommand("runs", "The runs in a folder, and how far each is");
  command->add_option("FOLDER", *folder, "the folder that holds run folders")->capture_default_str();
  command->footer("Examples:\n  efface runs\n  efface runs /data/runs");
  command->callback([=] {
    line.action = [=] {
      if (line.is_root()) list_runs(*folder);
    };
  });
}

}  // namespace efface
