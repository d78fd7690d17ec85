// This program's eigensolvers on matrices of a file, driven line by line by subspace_solvers.py.
//
//   eigen_worker MATRICES.safetensors     a line on stdin, a line of JSON on stdout:
//     NAME         the side a hard projector at energy .95 keeps; on one rank by LAPACK, on several by
//     ScaLAPACK,
//                  the matrix in block rows
//     all NAME     all eigenvectors
//     ridge NAME   the ridge projector's factor with tau the mean eigenvalue, on one rank, by Cholesky
#include <cstdio>
#include <string>

#include "benchmarks/worker.hpp"
#include "core/storage/safetensors.hpp"
#include "core/subspace/projector.hpp"
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
  serve_commands(world, [&](const std::string& command) {
    const size_t space = command.rfind(' ');
    const std::string name = space == std::string::npos ? command : command.substr(space + 1);
    const at::Tensor matrix = file.read(name);
    if (command.starts_with("ridge ")) {
      RidgeFactor factor;
      const double tau = matrix.diagonal().mean().item<double>();
      const double seconds = timed(world, [&] { factor = solve_ridge(matrix, tau); });
      std::printf("{\"seconds\": %.6f, \"residual\": %.3g}\n", seconds, factor.residual);
      std::fflush(stdout);
      return;
    }
    WantedVectors wanted;
    if (!command.starts_with("all "))
      wanted = [](const at::Tensor& values) {
        return basis_vectors({}, values.numel(), choose_rank(values.clamp_min(0), {}, "matrix"));
      };
    BlockRows rows = make_block_rows(matrix.size(0), world);
    rows.local.copy_(matrix.narrow(0, rows.offset, rows.rows()));
    Eigenpairs pairs;
    const double seconds = timed(world, [&] {
      pairs = world.size() == 1 ? solve_lapack(matrix, wanted) : solve_scalapack(rows, wanted);
    });
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
