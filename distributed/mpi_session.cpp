#include <mpi.h>

#include <cstdlib>
#include <exception>

#include "distributed/activity.hpp"
#include "distributed/backends/backends.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

bool mpi_is_running() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

/// Set by mpirun, by Slurm's PMIx and PMI plugins, and by other launchers of OpenMPI jobs.
bool started_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

}  // namespace

MpiSession::MpiSession(int* argc, char*** argv) {
  if (!started_by_launcher() || mpi_is_running()) return;
  // A rank that waits gives its core away: spinning costs milliseconds a message as soon as cores are shared,
  // with other ranks, threads or programs. Whoever has cores to spare can set it to 0.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", /*overwrite=*/0);
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
    throw Error(ErrorClass::communication, "MPI could not be started", "check that mpirun itself works here");
  if (provided < MPI_THREAD_SERIALIZED)
    throw Error(ErrorClass::communication, "this MPI was built without support for threads",
                "use an OpenMPI with MPI_THREAD_SERIALIZED");
}

MpiSession::~MpiSession() {
  // An exception on its way up means that other ranks are still working: MPI_Finalize would wait for them,
  // and the top level is about to abort.
  if (std::uncaught_exceptions() == 0 && mpi_is_running()) MPI_Finalize();
}

Communicator MpiSession::world() const {
  return mpi_is_running() ? Communicator(make_mpi_world_backend()) : Communicator();
}

void MpiSession::abort(int code) {
  if (mpi_is_running()) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

int mpi_fortran_handle(const Communicator& communicator) {
  const auto* backend = dynamic_cast<const HasMpiHandle*>(communicator.backend().get());
  return backend == nullptr ? -1 : backend->fortran_handle();
}

NodePlace place_on_node(const Communicator& communicator) {
  const int handle = mpi_fortran_handle(communicator);
  NodePlace place;
  if (handle < 0) return place;
  const InCollective running("place_on_node");
  MPI_Comm node = MPI_COMM_NULL;
  if (MPI_Comm_split_type(MPI_Comm_f2c(handle), MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node) != MPI_SUCCESS)
    throw Error(ErrorClass::communication, "MPI could not tell which ranks share a node");
  MPI_Comm_rank(node, &place.rank);
  MPI_Comm_size(node, &place.size);
  int first = communicator.rank();
  MPI_Bcast(&first, 1, MPI_INT, 0, node);
  place.node = first;
  MPI_Comm_free(&node);
  return place;
}

}  // namespace efface
