#include "core/storage/hdf5_file.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>

#include "core/storage/hdf5_handle.hpp"
#include "core/storage/hdf5_types.hpp"
#include "core/storage/pending_file.hpp"
#include "core/storage/run_directory.hpp"

namespace efface {
namespace {

constexpr const char* kDtype = "dtype";
constexpr const char* kChecksum = "crc32c";
constexpr const char* kBlockRows = "block_rows";
constexpr const char* kBlockChecksums = "block_crc32c";
constexpr const char* kText = "text";
constexpr const char* kFormat = "format";
constexpr int64_t kFormatNumber = 2;
constexpr int64_t kBlockBytes = 256 << 10;
constexpr int64_t kMostBlocks = 8192;  // an attribute holds 64 KiB

/// The library is built without locks of its own, and a checkpoint is written while training reads: one
/// thread at a time is inside it.
class Hdf5Lock {
 public:
  Hdf5Lock() : lock_(mutex()) {}

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex one;
    return one;
  }
  std::scoped_lock<std::recursive_mutex> lock_;
};

/// The rows of a dataset in blocks of `rows`, each with a checksum; a scalar is one row.
struct Blocks {
  int64_t all_rows = 0, row_bytes = 0, rows = 0;
  uint32_t seed = 0;  // CRC-32C of what the dataset is
  std::vector<uint32_t> checksums;

  Blocks(const std::string& name, const std::string& dtype, const std::vector<int64_t>& sizes,
         int64_t bytes) {
    all_rows = sizes.empty() ? 1 : sizes[0];
    row_bytes = all_rows > 0 ? bytes / all_rows : 0;
    rows = std::max({int64_t{1}, kBlockBytes / std::max<int64_t>(row_bytes, 1),
                     (all_rows + kMostBlocks - 1) / kMostBlocks});
    std::string what = name.substr(std::min(name.find_first_not_of('/'), name.size())) + "\n" + dtype + "\n" +
                       std::to_string(bytes) + "\n";
    for (const int64_t size : sizes) what += std::to_string(size) + ",";
    seed = crc32c(what.data(), what.size());
  }

  int64_t count() const { return (all_rows + rows - 1) / rows; }
  int64_t begin(int64_t block) const { return block * rows; }
  int64_t end(int64_t block) const { return std::min((block + 1) * rows, all_rows); }
  uint32_t checksum(int64_t block, const void* data) const {
    const std::string place = std::to_string(block) + "/" + std::to_string(rows);
    return crc32c(data, (end(block) - begin(block)) * row_bytes, crc32c(place.data(), place.size(), seed));
  }
  /// Of the dataset's name, dtype, shape and its blocks' checksums.
  uint32_t digest() const {
    const std::string place = std::to_string(rows);
    return crc32c(checksums.data(), checksums.size() * sizeof(uint32_t),
                  crc32c(place.data(), place.size(), seed));
  }
};

Hdf5Handle scalar_space() { return {H5Screate(H5S_SCALAR), H5Sclose}; }

Hdf5Handle simple_space(const std::vector<hsize_t>& sizes) {
  return {H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose};
}

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

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    const Hdf5Lock lock;
    file.close();
  }

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
      hdf5_check(found, where(name), "cannot be looked up");
      if (found == 0) return false;
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
                     Blocks blocks, const std::string& dtype) {
    if (!pending) refuse(name, "the file was opened for reading");
    if (exists(name)) refuse(name, "is written already");
    make_groups(name);
    const Hdf5Handle dataset(hdf5_check(H5Dcreate2(file, name.c_str(), stored, space, H5P_DEFAULT,
                                                   timeless(H5P_DATASET_CREATE), H5P_DEFAULT),
                                        where(name), "cannot be made"),
                             H5Dclose);
    if (blocks.all_rows * blocks.row_bytes > 0)
      hdf5_check(H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), where(name),
                 "cannot be written");
    write_attribute(name, kDtype, text_type(dtype.size()), scalar_space(), dtype.data());
    for (int64_t block = 0; block < blocks.count(); ++block)
      blocks.checksums.push_back(
          blocks.checksum(block, static_cast<const char*>(data) + blocks.begin(block) * blocks.row_bytes));
    write_attribute(name, kBlockRows, H5T_STD_I64LE, scalar_space(), &blocks.rows);
    if (blocks.count() > 0)
      write_attribute(name, kBlockChecksums, H5T_STD_U32LE,
                      simple_space({static_cast<hsize_t>(blocks.count())}), blocks.checksums.data());
    const uint32_t digest = blocks.digest();
    write_attribute(name, kChecksum, H5T_STD_U32LE, scalar_space(), &digest);
  }

  /// `type` describes the file and the memory alike.
  void write_attribute(const std::string& object, const std::string& key, hid_t type, hid_t space,
                       const void* value) {
    if (!pending) refuse(object, "the file was opened for reading");
    const Hdf5Handle target(
        hdf5_check(H5Oopen(file, object.c_str(), H5P_DEFAULT), where(object), "there is no such object"),
        H5Oclose);
    if (H5Aexists(target, key.c_str()) > 0) H5Adelete(target, key.c_str());
    const Hdf5Handle attribute(
        hdf5_check(H5Acreate2(target, key.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), where(object),
                   "its attribute cannot be made"),
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
    if (pending) return;
    if (bytes != H5Dget_storage_size(dataset) || bytes > std::filesystem::file_size(path))
      refuse(name, "is not stored whole in this file");
  }

  [[noreturn]] void refuse_damaged(const std::string& name) const {
    refuse(name, "is damaged: the checksum does not match", "delete the file and run again");
  }

  /// `count` integers of an attribute.
  template <typename Integer>
  void read_integers(const std::string& object, const char* key, hid_t memory, Integer* values,
                     int64_t count) const {
    const Hdf5Handle attribute = open_attribute(object, key);
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
    if (H5Sget_simple_extent_npoints(space) != count)
      refuse(object, std::string("its attribute ") + key + " has another size");
    hdf5_check(H5Aread(attribute, memory, values), where(object), "its checksums cannot be read");
  }

  /// Fills in the stored checksums; they and what the dataset is are then known to be as written.
  void read_checksums(const std::string& name, Blocks& blocks) const {
    read_integers(name, kBlockRows, H5T_NATIVE_INT64, &blocks.rows, 1);
    if (blocks.rows < 1 || blocks.rows > std::max(blocks.all_rows, kBlockBytes) ||
        blocks.count() > kMostBlocks)
      refuse_damaged(name);
    blocks.checksums.resize(blocks.count());
    if (blocks.count() > 0)
      read_integers(name, kBlockChecksums, H5T_NATIVE_UINT32, blocks.checksums.data(), blocks.count());
    uint32_t digest = 0;
    read_integers(name, kChecksum, H5T_NATIVE_UINT32, &digest, 1);
    if (digest != blocks.digest()) refuse_damaged(name);
  }

  /// The type of a tensor dataset, as its attribute and HDF5's own type agree on.
  const Hdf5Type& tensor_type(const std::string& name, hid_t dataset) const {
    const Hdf5Type* type = hdf5_type_named(attribute_text(name, kDtype));
    const Hdf5Handle stored(H5Dget_type(dataset), H5Tclose);
    if (!type || H5Tequal(stored, type->stored) <= 0) refuse(name, "is not a tensor");
    return *type;
  }

  /// A tensor dataset whose checksums have been read.
  struct TensorDataset {
    Hdf5Handle handle;
    const Hdf5Type* type;
    std::vector<int64_t> sizes;
    Blocks blocks;
  };
  TensorDataset open_tensor(const std::string& name) const {
    Hdf5Handle dataset = open_dataset(name);
    const Hdf5Type& type = tensor_type(name, dataset);
    std::vector<int64_t> sizes = shape(name, dataset);
    const int64_t bytes = c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(type.dtype));
    check_bytes(name, dataset, bytes);
    Blocks blocks(name, type.name, sizes, bytes);
    read_checksums(name, blocks);
    return {std::move(dataset), &type, std::move(sizes), std::move(blocks)};
  }

  /// Rows [begin, end), each block they touch read whole and checked. A scalar is one row.
  at::Tensor read_rows(const std::string& name, const TensorDataset& dataset, int64_t begin,
                       int64_t end) const {
    const Blocks& blocks = dataset.blocks;
    std::vector<int64_t> sizes = dataset.sizes;
    if (!sizes.empty()) sizes[0] = end - begin;
    at::Tensor result = at::empty(sizes, dataset.type->dtype);
    if (result.numel() == 0) return result;
    std::vector<char> edge;  // a block of which some rows are not wanted
    for (int64_t block = begin / blocks.rows; blocks.begin(block) < end; ++block) {
      const int64_t first = blocks.begin(block), last = blocks.end(block);
      const int64_t from = std::max(first, begin), to = std::min(last, end);
      char* wanted = static_cast<char*>(result.data_ptr()) + (from - begin) * blocks.row_bytes;
      const bool whole = from == first && to == last;
      if (!whole) edge.resize((last - first) * blocks.row_bytes);
      char* bytes = whole ? wanted : edge.data();
      read_span(name, dataset, first, last, bytes);
      if (blocks.checksum(block, bytes) != blocks.checksums.at(block)) refuse_damaged(name);
      if (!whole)
        std::memcpy(wanted, bytes + (from - first) * blocks.row_bytes, (to - from) * blocks.row_bytes);
    }
    return result;
  }

  void read_span(const std::string& name, const TensorDataset& dataset, int64_t begin, int64_t end,
                 void* into) const {
    const Hdf5Handle rows(hdf5_check(H5Dget_space(dataset.handle), where(name), "cannot be read"), H5Sclose);
    Hdf5Handle memory = scalar_space();
    if (!dataset.sizes.empty()) {
      std::vector<hsize_t> start(dataset.sizes.size(), 0), count(dataset.sizes.begin(), dataset.sizes.end());
      start[0] = static_cast<hsize_t>(begin);
      count[0] = static_cast<hsize_t>(end - begin);
      memory = simple_space(count);
      hdf5_check(H5Sselect_hyperslab(rows, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
                 where(name), "its rows cannot be selected");
    }
    hdf5_check(H5Dread(dataset.handle, dataset.type->memory, memory, rows, H5P_DEFAULT, into), where(name),
               "cannot be read");
  }

  /// A text dataset opened, its type and its one block.
  struct TextDataset {
    Hdf5Handle handle, type;
    Blocks blocks;
  };
  TextDataset open_text(const std::string& name) const {
    Hdf5Handle dataset = open_dataset(name);
    Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 || !shape(name, dataset).empty())
      refuse(name, "is not a text");
    const size_t bytes = H5Tget_size(type);
    check_bytes(name, dataset, bytes);
    Blocks blocks(name, kText, {}, static_cast<int64_t>(bytes));
    read_checksums(name, blocks);
    return {std::move(dataset), std::move(type), std::move(blocks)};
  }
};

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Hdf5Lock lock;
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
  result.write_attribute("/", kFormat, kFormatNumber);
  return result;
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const Hdf5Lock lock;
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
  if (!result.has_attribute("/", kFormat) ||
      result.attribute_number("/", kFormat) != static_cast<double>(kFormatNumber))
    throw Error(ErrorClass::storage, path.string() + ": was written by another version of efface",
                "delete the file and run again");
  return result;
}

void Hdf5File::close() {
  const Hdf5Lock lock;
  State& state = *state_;
  if (state.pending)
    hdf5_check(H5Fflush(state.file, H5F_SCOPE_LOCAL), state.path.string(), "cannot be flushed");
  hdf5_check(state.file.close(), state.path.string(), "cannot be closed");
  if (state.pending) state.pending->publish();
  state.pending.reset();
}

void Hdf5File::write(const std::string& name, const at::Tensor& tensor) {
  const Hdf5Lock lock;
  const Hdf5Type* type = hdf5_type_of(tensor.scalar_type());
  if (!type)
    state_->refuse(name, std::string("the dtype ") + c10::toString(tensor.scalar_type()) + " is not stored");
  const at::Tensor plain = tensor.detach().cpu().contiguous();
  const std::vector<hsize_t> sizes(plain.sizes().begin(), plain.sizes().end());
  const Hdf5Handle space = sizes.empty() ? scalar_space() : simple_space(sizes);
  state_->write_dataset(name, type->stored, type->memory, space, plain.data_ptr(),
                        Blocks(name, type->name, plain.sizes().vec(), static_cast<int64_t>(plain.nbytes())),
                        type->name);
}

void Hdf5File::write(const std::string& name, const std::vector<double>& values) {
  const Hdf5Lock lock;
  write(name, at::tensor(values, at::kDouble));
}

void Hdf5File::write(const std::string& name, const std::string& text) {
  const Hdf5Lock lock;
  const Hdf5Handle type = text_type(text.size());
  const auto bytes = static_cast<int64_t>(std::max<size_t>(text.size(), 1));
  state_->write_dataset(name, type, type, scalar_space(), text.c_str(), Blocks(name, kText, {}, bytes),
                        kText);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& key, const std::string& value) {
  const Hdf5Lock lock;
  state_->write_attribute(object, key, text_type(value.size()), scalar_space(), value.c_str());
}

void Hdf5File::write_attribute(const std::string& object, const std::string& key, double value) {
  const Hdf5Lock lock;
  state_->write_attribute(object, key, H5T_IEEE_F64LE, scalar_space(), &value);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& key, int64_t value) {
  const Hdf5Lock lock;
  state_->write_attribute(object, key, H5T_STD_I64LE, scalar_space(), &value);
}

bool Hdf5File::contains(const std::string& name) const {
  const Hdf5Lock lock;
  return state_->exists(name);
}

std::vector<std::string> Hdf5File::list(const std::string& group) const {
  const Hdf5Lock lock;
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
  const Hdf5Lock lock;
  const State::TensorDataset dataset = state_->open_tensor(name);
  return state_->read_rows(name, dataset, 0, dataset.blocks.all_rows);
}

at::Tensor Hdf5File::read_rows(const std::string& name, int64_t begin, int64_t end) const {
  const Hdf5Lock lock;
  const State::TensorDataset dataset = state_->open_tensor(name);
  if (dataset.sizes.empty() || begin < 0 || begin > end || end > dataset.sizes[0])
    state_->refuse(name, "has no rows [" + std::to_string(begin) + ", " + std::to_string(end) + ")");
  return state_->read_rows(name, dataset, begin, end);
}

uint32_t Hdf5File::checksum(const std::string& name) const {
  const Hdf5Lock lock;
  return state_->open_tensor(name).blocks.digest();
}

std::vector<int64_t> Hdf5File::shape(const std::string& name) const {
  const Hdf5Lock lock;
  return state_->shape(name, state_->open_dataset(name));
}

std::string Hdf5File::read_text(const std::string& name) const {
  const Hdf5Lock lock;
  const State::TextDataset dataset = state_->open_text(name);
  std::string text(dataset.blocks.row_bytes, '\0');
  hdf5_check(H5Dread(dataset.handle, dataset.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()),
             state_->where(name), "cannot be read");
  if (dataset.blocks.checksum(0, text.data()) != dataset.blocks.checksums.at(0)) state_->refuse_damaged(name);
  text.erase(text.find_last_not_of('\0') + 1);
  return text;
}

std::string Hdf5File::attribute_text(const std::string& object, const std::string& key) const {
  const Hdf5Lock lock;
  return state_->attribute_text(object, key);
}

double Hdf5File::attribute_number(const std::string& object, const std::string& key) const {
  const Hdf5Lock lock;
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
  const Hdf5Lock lock;
  return state_->exists(object) &&
         hdf5_check(H5Aexists_by_name(state_->file, object.c_str(), key.c_str(), H5P_DEFAULT),
                    state_->where(object), "its attributes cannot be looked up") > 0;
}

}  // namespace efface
