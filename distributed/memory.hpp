// What the C library does with memory that a tensor has given back.
#pragma once

namespace efface {

/// Keeps freed memory in the process, up to 2 GiB at the heap's end. A step frees and asks again for the same
/// activations; by default glibc returns them to the system in between, and a fifth of a step goes into
/// getting zeroed pages back. Call it once, before the first tensor. No effect without glibc.
void keep_freed_memory();

}  // namespace efface
