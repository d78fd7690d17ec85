#include "core/storage/hdf5_file.hpp"

#include <algorithm>
#include <optional>

#include "core/storage/hdf5_handle.hpp"
#include "core/storage/hdf5_types.hpp"
#include "core/storage/pending_file.hpp"
#include "core/storage/run_directory.hpp"

namespace efface {
namespace {

constexpr const char* kDtype = "dtype";
constexpr const char* kChecksum = "crc32c";
constexpr const char* kText = "text";

Hdf5Handle scalar_space() { return {H5Screate(H5S_SCALAR), H5Sclose}; }

/// A text of fixed length; HDF5 has none of length 0, so an empty one is a single zero byte.
Hdf5Handle text_type(size_t length) {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<size_t>(length, 1));
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  return type;
}

/// Without the times HDF5 would add, the same content gives the same bytes.
Hdf5Handle timeless(hid_t property_class) {
  Hdf5Handle properties(H5Pcreate(property_class), H5Pclose);
  H5Pset_obj_track_times(properties, false);
  return properties;
}

Hdf5Handle file_access() {
  Hdf5Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(properties, H5F_CLOSE_STRONG);
  // The 1.8 format has checksums over its own structures; the one before has none.
  H5Pset_libver_bounds(properties, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
  return properties;
}

}  // namespace

struct Hdf5File::State {
  std::filesystem::path path;
  std::optional<PendingFile>
      pending;  // while writing; declared first, so that the file is closed before it goes
  Hdf5Handle file;

  std::string where(const std::string& object) const { return path.string() + ": " + object; }

  [[noreturn]] void refuse(const std::string& object, const std::string& what,
                           const std::string& remedy = "") const {
    throw Error(ErrorClass::storage, where(object) + ": " + what, remedy);
  }

  /// Whether every part of the path is there; HDF5 answers for one part at a time.
  bool exists(const std::string& name) const {
    if (name.empty() || name == "/") return true;
    for (size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
      const htri_t found = H5Lexists(file, name.substr(0, slash).c_str(), H5P_DEFAULT);
      if (found <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return false;
      }
      if (slash == std::string::npos) return true;
    }
  }

  void make_groups(const std::string& name) const {
    for (size_t slash = name.find('/', 1); slash != std::string::npos; slash = name.find('/', slash + 1)) {
      const std::string group = name.substr(0, slash);
      if (exists(group)) continue;
      const Hdf5Handle made(
          hdf5_check(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, timeless(H5P_GROUP_CREATE), H5P_DEFAULT),
                     where(group), "the group cannot be made"),
          H5Gclose);
    }
  }

  void write_dataset(const std::string& name, hid_t stored, hid_t memory, hid_t space, const void* data,
                     size_t bytes, const std::string& dtype) {
    if (!pending) refuse(name, "the file was opened for reading");
    if (exists(name)) refuse(name, "is written already");
    make_groups(name);
    const Hdf5Handle dataset(hdf5_check(H5Dcreate2(file, name.c_str(), stored, space, H5P_DEFAULT,
                                                   timeless(H5P_DATASET_CREATE), H5P_DEFAULT),
                                        where(name), "cannot be made"),
                             H5Dclose);
    if (bytes > 0)
      hdf5_check(H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), where(name),
                 "cannot be written");
    write_attribute(name, kDtype, text_type(dtype.size()), dtype.data());
    const uint32_t checksum = crc32c(data, bytes);
    write_attribute(name, kChecksum, H5T_STD_U32LE, &checksum);
  }

  /// `type` describes the file and the memory alike.
  void write_attribute(const std::string& object, const std::string& key, hid_t type, const void* value) {
    if (!pending) refuse(object, "the file was opened for reading");
    const Hdf5Handle target(
        hdf5_check(H5Oopen(file, object.c_str(), H5P_DEFAULT), where(object), "there is no such object"),
        H5Oclose);
    if (H5Aexists(target, key.c_str()) > 0) H5Adelete(target, key.c_str());
    const Hdf5Handle attribute(
        hdf5_check(H5Acreate2(target, key.c_str(), type, scalar_space(), H5P_DEFAULT, H5P_DEFAULT),
                   where(object), "its attribute cannot be made"),
        H5Aclose);
    hdf5_check(H5Awrite(attribute, type, value), where(object), "its attribute cannot be written");
  }

  Hdf5Handle open_attribute(const std::string& object, const std::string& key) const {
    return {hdf5_check(H5Aopen_by_name(file, object.c_str(), key.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                       where(object), ("has no attribute " + key).c_str()),
            H5Aclose};
  }

  std::string attribute_text(const std::string& object, const std::string& key) const {
    const Hdf5Handle attribute = open_attribute(object, key);
    const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 ||
        H5Sget_simple_extent_npoints(space) != 1)
      refuse(object, "its attribute " + key + " is not a text");
    std::string text(H5Tget_size(type), '\0');
    hdf5_check(H5Aread(attribute, type, text.data()), where(object), "its attribute cannot be read");
    text.erase(text.find_last_not_of('\0') + 1);
    return text;
  }

  Hdf5Handle open_dataset(const std::string& name) const {
    if (!exists(name)) refuse(name, "there is no such dataset");
    return {hdf5_check(H5Dopen2(file, name.c_str(), H5P_DEFAULT), where(name), "cannot be opened"), H5Dclose};
  }

  std::vector<int64_t> shape(const std::string& name, hid_t dataset) const {
    const Hdf5Handle space(hdf5_check(H5Dget_space(dataset), where(name), "cannot be read"), H5Sclose);
    const int dimensions = hdf5_check(H5Sget_simple_extent_ndims(space), where(name), "cannot be read");
    std::vector<hsize_t> sizes(dimensions);
    if (dimensions > 0) H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    uint64_t bytes = 8;  // at most, for one element
    for (const hsize_t size : sizes)
      if (__builtin_mul_overflow(bytes, std::max<uint64_t>(size, 1), &bytes) || bytes > INT64_MAX)
        refuse(name, "has an impossible shape");
    return {sizes.begin(), sizes.end()};
  }

  /// Before memory is taken: what the dataset claims must be stored, and in this file.
  void check_bytes(const std::string& name, hid_t dataset, uint64_t bytes) const {
    if (bytes != H5Dget_storage_size(dataset) || bytes > std::filesystem::file_size(path))
      refuse(name, "is not stored whole in this file");
  }

  void check_sum(const std::string& name, const void* data, size_t bytes) const {
    const Hdf5Handle attribute = open_attribute(name, kChecksum);
    uint32_t expected = 0;
    hdf5_check(H5Aread(attribute, H5T_NATIVE_UINT32, &expected), where(name), "its checksum cannot be read");
    if (crc32c(data, bytes) != expected)
      refuse(name, "its bytes are damaged: the checksum does not match", "delete the file and run again");
  }

  /// The type of a tensor dataset, as its attribute and HDF5's own type agree on.
  const Hdf5Type& tensor_type(const std::string& name, hid_t dataset) const {
    const Hdf5Type* type = hdf5_type_named(attribute_text(name, kDtype));
    const Hdf5Handle stored(H5Dget_type(dataset), H5Tclose);
    if (!type || H5Tequal(stored, type->stored) <= 0) refuse(name, "is not a tensor");
    return *type;
  }
};

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are thrown, not printed
  Hdf5File result;
  result.state_ = std::make_shared<State>();
  State& state = *result.state_;
  state.path = path;
  state.pending.emplace(path);
  state.file = Hdf5Handle(hdf5_check(H5Fcreate(state.pending->temporary().c_str(), H5F_ACC_TRUNC,
                                               timeless(H5P_FILE_CREATE), file_access()),
                                     path.string(), "cannot be created"),
                          H5Fclose);
  return result;
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    throw Error(ErrorClass::storage, path.string() + ": there is no such file");
  Hdf5File result;
  result.state_ = std::make_shared<State>();
  result.state_->path = path;
  result.state_->file =
      Hdf5Handle(hdf5_check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, file_access()), path.string(),
                            "cannot be opened as HDF5; it may be cut short or damaged"),
                 H5Fclose);
  return result;
}

void Hdf5File::close() {
  State& state = *state_;
  if (state.pending)
    hdf5_check(H5Fflush(state.file, H5F_SCOPE_LOCAL), state.path.string(), "cannot be flushed");
  hdf5_check(state.file.close(), state.path.string(), "cannot be closed");
  if (state.pending) state.pending->publish();
  state.pending.reset();
}

void Hdf5File::write(const std::string& name, const at::Tensor& tensor) {
  const Hdf5Type* type = hdf5_type_of(tensor.scalar_type());
  if (!type)
    state_->refuse(name, std::string("the dtype ") + c10::toString(tensor.scalar_type()) + " is not stored");
  const at::Tensor plain = tensor.detach().cpu().contiguous();
  const std::vector<hsize_t> sizes(plain.sizes().begin(), plain.sizes().end());
  const Hdf5Handle space =
      sizes.empty()
          ? scalar_space()
          : Hdf5Handle(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose);
  state_->write_dataset(name, type->stored, type->memory, space, plain.data_ptr(), plain.nbytes(),
                        type->name);
}

void Hdf5File::write(const std::string& name, const std::vector<double>& values) {
  write(name, at::tensor(values, at::kDouble));
}

void Hdf5File::write(const std::string& name, const std::string& text) {
  const Hdf5Handle type = text_type(text.size());
  state_->write_dataset(name, type, type, scalar_space(), text.c_str(), std::max<size_t>(text.size(), 1),
                        kText);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& key, const std::string& value) {
  state_->write_attribute(object, key, text_type(value.size()), value.c_str());
}

void Hdf5File::write_attribute(const std::string& object, const std::string& key, double value) {
  state_->write_attribute(object, key, H5T_IEEE_F64LE, &value);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& key, int64_t value) {
  state_->write_attribute(object, key, H5T_STD_I64LE, &value);
}

bool Hdf5File::contains(const std::string& name) const { return state_->exists(name); }

std::vector<std::string> Hdf5File::list(const std::string& group) const {
  if (!state_->exists(group)) state_->refuse(group, "there is no such group");
  const Hdf5Handle opened(
      hdf5_check(H5Gopen2(state_->file, group.c_str(), H5P_DEFAULT), state_->where(group), "is not a group"),
      H5Gclose);
  std::vector<std::string> names;
  hdf5_check(H5Literate(
                 opened, H5_INDEX_NAME, H5_ITER_INC, nullptr,
                 [](hid_t, const char* name, const H5L_info_t*, void* list) -> herr_t {
                   static_cast<std::vector<std::string>*>(list)->emplace_back(name);
                   return 0;
                 },
                 &names),
             state_->where(group), "cannot be listed");
  return names;
}

at::Tensor Hdf5File::read(const std::string& name) const {
  const Hdf5Handle dataset = state_->open_dataset(name);
  const Hdf5Type& type = state_->tensor_type(name, dataset);
  const std::vector<int64_t> sizes = state_->shape(name, dataset);
  state_->check_bytes(name, dataset, c10::multiply_integers(sizes) * c10::elementSize(type.dtype));
  at::Tensor result = at::empty(sizes, type.dtype);
  if (result.numel() > 0)
    hdf5_check(H5Dread(dataset, type.memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, result.data_ptr()),
               state_->where(name), "cannot be read");
  state_->check_sum(name, result.data_ptr(), result.nbytes());
  return result;
}

at::Tensor Hdf5File::read_rows(const std::string& name, int64_t begin, int64_t end) const {
  const Hdf5Handle dataset = state_->open_dataset(name);
  const Hdf5Type& type = state_->tensor_type(name, dataset);
  std::vector<int64_t> sizes = state_->shape(name, dataset);
  if (sizes.empty() || begin < 0 || begin > end || end > sizes[0])
    state_->refuse(name, "has no rows [" + std::to_string(begin) + ", " + std::to_string(end) + ")");
  state_->check_bytes(name, dataset, c10::multiply_integers(sizes) * c10::elementSize(type.dtype));
  sizes[0] = end - begin;
  at::Tensor result = at::empty(sizes, type.dtype);
  if (result.numel() == 0) return result;
  std::vector<hsize_t> start(sizes.size(), 0), count(sizes.begin(), sizes.end());
  start[0] = static_cast<hsize_t>(begin);
  const Hdf5Handle rows(H5Dget_space(dataset), H5Sclose);
  const Hdf5Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose);
  hdf5_check(H5Sselect_hyperslab(rows, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
             state_->where(name), "its rows cannot be selected");
  hdf5_check(H5Dread(dataset, type.memory, memory, rows, H5P_DEFAULT, result.data_ptr()), state_->where(name),
             "cannot be read");
  return result;
}

std::vector<int64_t> Hdf5File::shape(const std::string& name) const {
  return state_->shape(name, state_->open_dataset(name));
}

std::string Hdf5File::read_text(const std::string& name) const {
  const Hdf5Handle dataset = state_->open_dataset(name);
  const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 ||
      !state_->shape(name, dataset).empty())
    state_->refuse(name, "is not a text");
  state_->check_bytes(name, dataset, H5Tget_size(type));
  std::string text(H5Tget_size(type), '\0');
  hdf5_check(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()), state_->where(name),
             "cannot be read");
  state_->check_sum(name, text.data(), text.size());
  text.erase(text.find_last_not_of('\0') + 1);
  return text;
}

std::string Hdf5File::attribute_text(const std::string& object, const std::string& key) const {
  return state_->attribute_text(object, key);
}

double Hdf5File::attribute_number(const std::string& object, const std::string& key) const {
  const Hdf5Handle attribute = state_->open_attribute(object, key);
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
  double value = 0;
  if (H5Sget_simple_extent_npoints(space) != 1)
    state_->refuse(object, "its attribute " + key + " is not one number");
  hdf5_check(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), state_->where(object),
             "its attribute is not a number");
  return value;
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& key) const {
  return state_->exists(object) &&
         H5Aexists_by_name(state_->file, object.c_str(), key.c_str(), H5P_DEFAULT) > 0;
}

}  // namespace efface
