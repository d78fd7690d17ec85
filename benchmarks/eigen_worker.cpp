// This program's eigensolvers on matrices of a file, driven line by line by subspace_solvers.py.
//
//   eigen_worker MATRICES.safetensors     names on stdin: one solve each, a line of JSON on stdout. On one
//   rank
//                                         by LAPACK, on several by ScaLAPACK, the matrix in block rows.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "core/storage/safetensors.hpp"
#include "distributed/communicator.hpp"
#include "distributed/eigensolver.hpp"
#include "distributed/error.hpp"
#include "distributed/memory.hpp"
#include "distributed/mesh.hpp"
#include "distributed/threads.hpp"

namespace efface {
namespace {

int serve(int argc, char** argv, const Communicator& world) {
  if (argc != 2) throw Error(ErrorClass::usage, "eigen_worker MATRICES.safetensors");
  const auto file = SafetensorsReader::open_file(argv[1]);
  const bool root = world.rank() == 0;
  if (root) std::cout << "{\"ready\": true}" << std::endl;
  for (;;) {
    std::string name;
    if (root) std::getline(std::cin, name);
    name = world.broadcast(name, 0);
    if (name.empty()) return 0;
    const at::Tensor matrix = file.read(name);
    BlockRows rows = make_block_rows(matrix.size(0), world);
    rows.local.copy_(matrix.narrow(0, rows.offset, rows.rows()));
    world.barrier();
    const auto started = std::chrono::steady_clock::now();
    const Eigenpairs pairs = world.size() == 1 ? solve_lapack(matrix) : solve_scalapack(rows);
    const double mine = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    const double seconds = world.all_reduce(mine, Reduction::max);
    if (root)
      std::printf("{\"seconds\": %.6f, \"residual\": %.3g, \"orthogonality\": %.3g}\n", seconds,
                  pairs.residual, pairs.orthogonality),
          std::fflush(stdout);
  }
}

}  // namespace
}  // namespace efface

int main(int argc, char** argv) {
  efface::keep_freed_memory();
  efface::MpiSession session(&argc, &argv);
  try {
    efface::set_threads(session.world());
    return efface::serve(argc, argv, session.world());
  } catch (const std::exception& error) {
    std::cerr << "eigen_worker: error: " << error.what() << "\n";
    efface::MpiSession::abort(1);
  }
}
