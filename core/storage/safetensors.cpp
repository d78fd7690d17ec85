#include "core/storage/safetensors.hpp"

#include <cstring>
#include <unordered_map>

#include "core/storage/mapped_file.hpp"
#include "core/storage/safetensors_header.hpp"

namespace efface {

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

  const uint8_t* bytes(const Tensor& tensor) const { return files[tensor.file].data() + tensor.entry.begin; }
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
  const auto& tensor = state_->find(name);
  at::Tensor copy = at::empty(tensor.entry.shape, tensor.entry.dtype);
  if (copy.numel() > 0) std::memcpy(copy.data_ptr(), state_->bytes(tensor), copy.nbytes());
  return copy;
}

at::Tensor SafetensorsReader::read_slice(const std::string& name, int dim, int64_t begin, int64_t end) const {
  const auto& tensor = state_->find(name);
  std::vector<int64_t> shape = tensor.entry.shape;
  if (dim < 0 || dim > 1 || dim >= static_cast<int>(shape.size()) || begin < 0 || begin > end ||
      end > shape[dim])
    throw Error(ErrorClass::model, file_of(name).string() + ": tensor " + shown(name) + " has no slice [" +
                                       std::to_string(begin) + ", " + std::to_string(end) +
                                       ") of dimension " + std::to_string(dim));
  const int64_t whole = shape[dim];
  shape[dim] = end - begin;
  at::Tensor copy = at::empty(shape, tensor.entry.dtype);
  if (copy.numel() == 0) return copy;
  // A slice of dimension 1 is one run of bytes in each row; a slice of dimension 0 is one run altogether.
  const int64_t rows = dim == 0 ? 1 : shape[0];
  const size_t run = copy.nbytes() / rows, unit = run / (end - begin);
  const uint8_t* source = state_->bytes(tensor) + begin * unit;
  auto* target = static_cast<uint8_t*>(copy.data_ptr());
  for (int64_t row = 0; row < rows; ++row) std::memcpy(target + row * run, source + row * whole * unit, run);
  return copy;
}

}  // namespace efface
