// efface doctor: is this machine ready, and how fast is it?
#include <ATen/Parallel.h>
#include <hdf5.h>
#include <mpi.h>
#include <sched.h>
#include <torch/version.h>

#include <chrono>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <thread>

#include "distributed/error.hpp"
#include "distributed/memory.hpp"
#include "distributed/threads.hpp"
#include "launch/commands/command.hpp"

namespace efface {
namespace {

int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}

double memory_gib(const std::string& field) { return static_cast<double>(system_memory(field)) / (1 << 30); }

/// GFLOP/s of a square matrix product, the best of a few repetitions.
double product_rate(at::ScalarType dtype, at::Device device) {
  constexpr int64_t n = 1536;
  const auto a = at::ones({n, n}, at::dtype(dtype).device(device)),
             b = at::ones({n, n}, at::dtype(dtype).device(device));
  double best = 0;
  for (int repetition = 0; repetition < 4; ++repetition) {
    const auto start = std::chrono::steady_clock::now();
    const auto c = at::mm(a, b);
    c.index({0, 0}).item();  // waits for the device
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * n * n * n / seconds / 1e9);
  }
  return best;
}

std::string rate_text(at::Device device) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(0) << product_rate(at::kFloat, device) << " GFLOP/s fp32, "
      << product_rate(at::kBFloat16, device) << " GFLOP/s bf16";
  return out.str();
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, static_cast<size_t>(length));
  return version.substr(0, version.find(','));
}

void examine(const CommandLine& line) {
  std::vector<std::pair<std::string, std::string>> findings;
  std::vector<std::string> warnings;
  const auto say = [&](const std::string& what, const std::string& found) {
    findings.emplace_back(what, found);
  };
  const ThreadChoice threads = set_threads(line.world);
  if (!threads.warning.empty()) warnings.push_back(threads.warning);
  const int cores = static_cast<int>(std::thread::hardware_concurrency()), allowed = allowed_cores();
  say("efface", EFFACE_VERSION);
  say("cores", std::to_string(cores) + ", of which this process may use " + std::to_string(allowed));
  say("threads", std::to_string(threads.threads) + " a rank");
  std::ostringstream memory;
  memory << std::fixed << std::setprecision(1) << memory_gib("MemAvailable") << " GiB free of "
         << memory_gib("MemTotal") << " GiB";
  say("memory", memory.str());
  say("ranks", std::to_string(line.world.size()) + " (" + line.world.backend_name() + ")");
  say("MPI", mpi_version());
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  say("HDF5", std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release));
  say("LibTorch", TORCH_VERSION);
  const bool cuda = at::hasCUDA();
#ifdef EFFACE_WITH_CUDA
  say("CUDA", cuda ? "built in, a GPU is usable" : "built in, no usable GPU or driver");
#else
  say("CUDA", "not built in");
#endif
  // Every rank computes at once, as in a run; the slowest decides.
  line.world.barrier();
  say("products", rate_text(at::kCPU));
  if (cuda) say("on the GPU", rate_text(at::kCUDA));
  double sum = 0;
  if (line.world.size() > 1) {
    sum = line.world.all_reduce(1.0);
    say("all_reduce", sum == line.world.size() ? "works over all ranks" : "WRONG over all ranks");
  }
  if (memory_gib("MemAvailable") < 4)
    warnings.push_back("less than 4 GiB of memory is free; the quickstart needs about 3");
  if (!line.is_root()) return;
  for (const auto& [what, found] : findings) std::cout << std::left << std::setw(12) << what << found << "\n";
  for (const auto& warning : warnings) std::cout << "warning: " << warning << "\n";
  std::cout << (warnings.empty() ? "ready\n" : "ready, with the warnings above\n");
}

}  // namespace

void add_doctor(CommandLine line) {
  CLI::App* command = line.app.add_subcommand("doctor", "Is this machine ready, and how fast is it?");
  command->footer("Examples:\n  efface doctor\n  mpirun -n 2 --bind-to none efface doctor");
  command->callback([line] { line.action = [line] { examine(line); }; });
}

}  // namespace efface
