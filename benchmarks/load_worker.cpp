// load_worker FOLDER: how long it takes until every tensor of a folder is in memory of its own, beside dd's
// time for the same files; a line of JSON a round. Threads: OMP_NUM_THREADS.
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>

#include "core/storage/safetensors.hpp"

namespace {

double seconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  const std::string dd =
      "for f in '" + folder + "'/*.safetensors; do dd if=$f of=/dev/null bs=1M status=none; done";
  constexpr int kRounds = 11;  // the first one warms the cache
  for (int round = 0; round < kRounds; ++round) {
    size_t bytes = 0;
    std::vector<at::Tensor> weights;  // given back after the clock has stopped
    const double read = seconds([&] {
      const auto reader = efface::SafetensorsReader::open_folder(folder);
      for (const auto& name : reader.names()) {
        weights.push_back(at::empty(reader.shape(name), reader.dtype(name)));
        reader.read_into(weights.back(), name);
        bytes += weights.back().nbytes();
      }
    });
    const double plain = seconds([&] {
      if (std::system(dd.c_str()) != 0) std::exit(1);
    });
    if (round > 0)
      std::cout << "{\"bytes\": " << bytes << ", \"load\": " << read << ", \"dd\": " << plain
                << ", \"of_dd\": " << plain / read << "}" << std::endl;
  }
}
