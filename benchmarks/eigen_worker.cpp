// This program's eigensolvers on matrices of a file, driven line by line by subspace_solvers.py.
//
//   eigen_worker MATRICES.safetensors     names on stdin: one solve each, a line of JSON on stdout. On one
//   rank
//                                         by LAPACK, on several by ScaLAPACK, the matrix in block rows.
#include <cstdio>
#include <string>

#include "benchmarks/worker.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/eigensolver.hpp"
#include "distributed/error.hpp"
#include "distributed/mesh.hpp"
#include "distributed/threads.hpp"

namespace efface {
namespace {

void serve(int argc, char** argv, const Communicator& world) {
  if (argc != 2) throw Error(ErrorClass::usage, "eigen_worker MATRICES.safetensors");
  set_threads(world);
  const auto file = SafetensorsReader::open_file(argv[1]);
  serve_commands(world, [&](const std::string& name) {
    const at::Tensor matrix = file.read(name);
    BlockRows rows = make_block_rows(matrix.size(0), world);
    rows.local.copy_(matrix.narrow(0, rows.offset, rows.rows()));
    Eigenpairs pairs;
    const double seconds =
        timed(world, [&] { pairs = world.size() == 1 ? solve_lapack(matrix) : solve_scalapack(rows); });
    if (world.rank() != 0) return;
    std::printf("{\"seconds\": %.6f, \"residual\": %.3g, \"orthogonality\": %.3g}\n", seconds, pairs.residual,
                pairs.orthogonality);
    std::fflush(stdout);
  });
}

}  // namespace
}  // namespace efface

int main(int argc, char** argv) {
  return efface::run_worker(argc, argv, "eigen_worker",
                            [&](const efface::Communicator& world) { efface::serve(argc, argv, world); });
}
