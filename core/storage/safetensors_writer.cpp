#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/storage/mapped_file.hpp"
#include "core/storage/pending_file.hpp"
#include "core/storage/safetensors.hpp"
#include "core/storage/safetensors_header.hpp"

namespace efface {
namespace {

using Json = nlohmann::ordered_json;

std::string header_text(const std::filesystem::path& file,
                        const std::vector<SafetensorsWriter::Declaration>& declarations,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  auto& entries = header.get_ref<Json::object_t&>();  // assignment by key would search all before it
  std::unordered_set<std::string> names{"__metadata__"};
  uint64_t offset = 0;
  for (const auto& [name, dtype, shape] : declarations) {
    if (!names.insert(name).second)
      throw Error(ErrorClass::storage, file.string() + ": the name " + shown(name) + " is taken");
    const uint64_t end = offset + c10::elementSize(dtype) * c10::multiply_integers(shape);
    entries.emplace_back(
        name,
        Json{{"dtype", safetensors_dtype_name(dtype)}, {"shape", shape}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts at a multiple of 8, as the format asks
  return text;
}

}  // namespace

struct SafetensorsWriter::State {
  State(const std::filesystem::path& file, std::vector<Declaration> list)
      : pending(file), declarations(std::move(list)) {}
  PendingFile pending;
  std::vector<Declaration> declarations;
  size_t next = 0;
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& file, std::vector<Declaration> declarations,
                                     const std::map<std::string, std::string>& metadata)
    : state_(std::make_unique<State>(file, std::move(declarations))) {
  const std::string text = header_text(file, state_->declarations, metadata);
  uint8_t length[8];
  for (int byte = 0; byte < 8; ++byte) length[byte] = static_cast<uint8_t>(uint64_t{text.size()} >> 8 * byte);
  state_->pending.append(length, sizeof(length));
  state_->pending.append(text.data(), text.size());
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::append(const at::Tensor& tensor) {
  const std::string file = state_->pending.target().string();
  if (state_->next == state_->declarations.size())
    throw Error(ErrorClass::storage, file + ": more tensors than declared");
  const Declaration& declared = state_->declarations[state_->next];
  if (!tensor.device().is_cpu() || tensor.scalar_type() != declared.dtype || tensor.sizes() != declared.shape)
    throw Error(ErrorClass::storage, file + ": tensor " + shown(declared.name) + " is not as declared");
  const at::Tensor plain = tensor.contiguous();
  if (plain.numel() > 0) state_->pending.append(plain.data_ptr(), plain.nbytes());
  ++state_->next;
}

void SafetensorsWriter::close() {
  if (state_->next != state_->declarations.size())
    throw Error(ErrorClass::storage, state_->pending.target().string() + ": tensor " +
                                         shown(state_->declarations[state_->next].name) + " is missing");
  state_->pending.publish();
}

void write_safetensors(const std::filesystem::path& file,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const auto& [name, tensor] : tensors)
    declarations.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  SafetensorsWriter writer(file, std::move(declarations), metadata);
  for (const auto& [name, tensor] : tensors) writer.append(tensor);
  writer.close();
}

}  // namespace efface
