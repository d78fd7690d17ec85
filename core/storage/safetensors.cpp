#include "core/storage/safetensors.hpp"

#include <unordered_map>

#include "core/storage/mapped_file.hpp"
#include "core/storage/safetensors_header.hpp"

namespace efface {
namespace {

/// Can the bytes of a tensor of `dtype` go to `target` as they are?
bool takes_bytes(const at::Tensor& target, at::ScalarType dtype) {
  return target.scalar_type() == dtype && target.device().is_cpu() && target.is_contiguous();
}

}  // namespace

struct SafetensorsReader::State {
  struct Tensor {
    SafetensorsEntry entry;
    size_t file = 0;
  };
  std::filesystem::path source;
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;
  std::unordered_map<std::string, size_t> positions;
  std::map<std::string, std::string> metadata;

  void add(const std::filesystem::path& path) {
    MappedFile file(path, ErrorClass::model);
    SafetensorsHeader header = read_safetensors_header(file);
    if (files.empty()) metadata = std::move(header.metadata);
    for (SafetensorsEntry& entry : header.entries) {
      const auto [other, added] = positions.emplace(entry.name, tensors.size());
      if (!added)
        throw Error(ErrorClass::model, path.string() + ": tensor " + shown(entry.name) + " is also in " +
                                           files[tensors[other->second].file].path().string());
      tensors.push_back({std::move(entry), files.size()});
    }
    files.push_back(std::move(file));
  }

  const Tensor& find(const std::string& name) const {
    const auto position = positions.find(name);
    if (position == positions.end())
      throw Error(ErrorClass::model, source.string() + ": there is no tensor " + shown(name));
    return tensors[position->second];
  }

  /// The tensor where it lies in the mapped file; not to be written to, nor kept.
  at::Tensor view(const Tensor& tensor) const {
    const MappedFile& file = files[tensor.file];
    if (tensor.entry.begin % c10::elementSize(tensor.entry.dtype) == 0)
      return at::from_blob(const_cast<uint8_t*>(file.data() + tensor.entry.begin), tensor.entry.shape,
                           tensor.entry.dtype);
    at::Tensor copy = at::empty(tensor.entry.shape, tensor.entry.dtype);  // a header of an odd length
    file.read(copy.data_ptr(), tensor.entry.begin, copy.nbytes());
    return copy;
  }

  /// `skipped` bytes of the tensor, then as many as `target` has.
  void read_run(const at::Tensor& target, const Tensor& tensor, uint64_t skipped) const {
    files[tensor.file].read(target.data_ptr(), tensor.entry.begin + skipped, target.nbytes());
  }
};

SafetensorsReader SafetensorsReader::open_file(const std::filesystem::path& file) {
  auto state = std::make_shared<State>();
  state->source = file;
  state->add(file);
  SafetensorsReader reader;
  reader.state_ = std::move(state);
  return reader;
}

SafetensorsReader SafetensorsReader::open_folder(const std::filesystem::path& folder) {
  const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) return open_file(single);
  if (!std::filesystem::exists(index))
    throw Error(ErrorClass::model,
                folder.string() + ": there is no model.safetensors and no index of several",
                "give the folder of a Hugging Face model; a GGUF file goes through `efface import` first");
  auto state = std::make_shared<State>();
  state->source = folder;
  const auto weight_map = read_safetensors_index(index);
  std::map<std::string, size_t> opened;
  for (const auto& [name, file] : weight_map)
    if (opened.emplace(file, opened.size()).second) state->add(folder / file);
  for (const auto& [name, file] : weight_map) {
    const State::Tensor& tensor = state->find(name);
    if (tensor.file != opened.at(file))
      throw Error(ErrorClass::model,
                  index.string() + ": tensor " + shown(name) + " is not in " + shown(file));
  }
  SafetensorsReader reader;
  reader.state_ = std::move(state);
  return reader;
}

bool SafetensorsReader::contains(const std::string& name) const { return state_->positions.count(name) > 0; }

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  names.reserve(state_->tensors.size());
  for (const auto& tensor : state_->tensors) names.push_back(tensor.entry.name);
  return names;
}

std::vector<int64_t> SafetensorsReader::shape(const std::string& name) const {
  return state_->find(name).entry.shape;
}

at::ScalarType SafetensorsReader::dtype(const std::string& name) const {
  return state_->find(name).entry.dtype;
}

std::filesystem::path SafetensorsReader::file_of(const std::string& name) const {
  return state_->files[state_->find(name).file].path();
}

const std::map<std::string, std::string>& SafetensorsReader::metadata() const { return state_->metadata; }

at::Tensor SafetensorsReader::read(const std::string& name) const {
  const auto& entry = state_->find(name).entry;
  at::Tensor copy = at::empty(entry.shape, entry.dtype);
  read_into(copy, name);
  return copy;
}

at::Tensor SafetensorsReader::read_slice(const std::string& name, int dim, int64_t begin, int64_t end) const {
  const auto& entry = state_->find(name).entry;
  at::Tensor copy = at::empty(slice_shape(name, dim, begin, end), entry.dtype);
  read_slice_into(copy, name, dim, begin, end);
  return copy;
}

void SafetensorsReader::read_into(const at::Tensor& target, const std::string& name) const {
  const auto& tensor = state_->find(name);
  require_shape(target, name, tensor.entry.shape);
  if (takes_bytes(target, tensor.entry.dtype))
    state_->read_run(target, tensor, 0);
  else if (target.numel() > 0)
    target.copy_(state_->view(tensor));
}

void SafetensorsReader::read_slice_into(const at::Tensor& target, const std::string& name, int dim,
                                        int64_t begin, int64_t end) const {
  const auto& tensor = state_->find(name);
  require_shape(target, name, slice_shape(name, dim, begin, end));
  if (target.numel() == 0) return;
  if (dim == 0 && takes_bytes(target, tensor.entry.dtype))
    state_->read_run(target, tensor, target.nbytes() / (end - begin) * begin);
  else
    target.copy_(state_->view(tensor).slice(dim, begin, end));
}

std::vector<int64_t> SafetensorsReader::slice_shape(const std::string& name, int dim, int64_t begin,
                                                    int64_t end) const {
  std::vector<int64_t> shape = state_->find(name).entry.shape;
  if (dim < 0 || dim > 1 || dim >= static_cast<int>(shape.size()) || begin < 0 || begin > end ||
      end > shape[dim])
    throw Error(ErrorClass::model, file_of(name).string() + ": tensor " + shown(name) + " has no slice [" +
                                       std::to_string(begin) + ", " + std::to_string(end) +
                                       ") of dimension " + std::to_string(dim));
  shape[dim] = end - begin;
  return shape;
}

void SafetensorsReader::require_shape(const at::Tensor& target, const std::string& name,
                                      const std::vector<int64_t>& shape) const {
  if (target.sizes() != at::IntArrayRef(shape))
    throw Error(ErrorClass::model, file_of(name).string() + ": tensor " + shown(name) +
                                       " does not have the shape of what it is read into");
}

}  // namespace efface
