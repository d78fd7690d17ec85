// The backends' makers, for this room only. Others see Communicator.
#pragma once

#include <memory>

#include "distributed/communicator.hpp"

namespace efface {

/// The group of this rank alone: every collective is the identity.
std::shared_ptr<CommunicatorBackend> make_self_backend();

/// MPI_COMM_WORLD. @pre MPI is initialised.
std::shared_ptr<CommunicatorBackend> make_mpi_world_backend();

/// The MPI_Comm behind a backend of the kind `mpi`, or behind the host side of one of the kind `nccl`, as
/// Fortran handle; -1 for the other kinds.
class HasMpiHandle {
 public:
  virtual ~HasMpiHandle() = default;
  virtual int fortran_handle() const = 0;
};

}  // namespace efface
