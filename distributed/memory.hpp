// Memory of the host: what is left of it, and what the C library does with what a tensor has given back.
#pragma once

#include <cstdint>
#include <string>

#include "distributed/communicator.hpp"

namespace efface {

/// Keeps freed memory in the process, up to 2 GiB at the heap's end. A step frees and asks again for the same
/// activations; by default glibc returns them to the system in between, and a fifth of a step goes into
/// getting zeroed pages back. Call it once, before the first tensor. No effect without glibc.
void keep_freed_memory();

/// Bytes of a field of the system's memory table: "MemTotal", "MemAvailable"; 0 where it does not say.
int64_t system_memory(const std::string& field);

/// Bytes this rank may still take: what its node has left (MemAvailable, and the limit of its control group),
/// shared evenly by the ranks there; the least of any rank. Collective.
int64_t available_memory(const Communicator& world);

}  // namespace efface
