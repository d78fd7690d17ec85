// report.html: one self-contained page a person can look at, made from the run directory alone (stage
// summaries, metrics, the recipe as it was resolved). No script, nothing loaded from elsewhere; light and
// dark.
#pragma once

#include <filesystem>
#include <string>

namespace efface {

/// Writes `run_folder`/report.html beside its name and renames it. Stages that run.json does not list have no
/// section. Throws Error(storage) when the folder is not a run directory. One rank calls it.
void write_report(const std::filesystem::path& run_folder);

}  // namespace efface
