// How dtypes are stored in HDF5.
#pragma once

#include <ATen/ATen.h>
#include <hdf5.h>

#include <string>

namespace efface {

/// One dtype: the value of the attribute "dtype", the type in the file and in memory. bfloat16 and float16
/// are uint16 (their bits), bool is uint8.
struct Hdf5Type {
  at::ScalarType dtype;
  const char* name;
  hid_t stored;
  hid_t memory;
};

/// nullptr for a dtype that is not stored.
const Hdf5Type* hdf5_type_of(at::ScalarType dtype);
const Hdf5Type* hdf5_type_named(const std::string& name);

}  // namespace efface
