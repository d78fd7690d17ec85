#include "core/storage/hdf5_types.hpp"

#include <array>

namespace efface {
namespace {

/// HDF5's type identifiers exist once the library runs, hence a function.
const std::array<Hdf5Type, 8>& types() {
  static const std::array<Hdf5Type, 8> kTypes{{{at::kFloat, "float32", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT},
                                               {at::kDouble, "float64", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE},
                                               {at::kBFloat16, "bfloat16", H5T_STD_U16LE, H5T_NATIVE_UINT16},
                                               {at::kHalf, "float16", H5T_STD_U16LE, H5T_NATIVE_UINT16},
                                               {at::kLong, "int64", H5T_STD_I64LE, H5T_NATIVE_INT64},
                                               {at::kInt, "int32", H5T_STD_I32LE, H5T_NATIVE_INT32},
                                               {at::kByte, "uint8", H5T_STD_U8LE, H5T_NATIVE_UINT8},
                                               {at::kBool, "bool", H5T_STD_U8LE, H5T_NATIVE_UINT8}}};
  return kTypes;
}

}  // namespace

const Hdf5Type* hdf5_type_of(at::ScalarType dtype) {
  for (const Hdf5Type& type : types())
    if (type.dtype == dtype) return &type;
  return nullptr;
}

const Hdf5Type* hdf5_type_named(const std::string& name) {
  for (const Hdf5Type& type : types())
    if (type.name == name) return &type;
  return nullptr;
}

}  // namespace efface
