// Stands in for nccl.cpp in a build without the CUDA toolkit.
#include "distributed/communicator.hpp"
#include "distributed/error.hpp"

namespace efface {

Communicator make_nccl_communicator(const Communicator&, int) {
  throw Error(ErrorClass::communication, "this program was built without CUDA and NCCL",
              "build it where the CUDA toolkit is (cmake --preset cuda), or run on the CPU");
}

}  // namespace efface
