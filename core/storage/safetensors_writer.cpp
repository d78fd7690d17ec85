#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/storage/mapped_file.hpp"
#include "core/storage/pending_file.hpp"
#include "core/storage/safetensors.hpp"
#include "core/storage/safetensors_header.hpp"

namespace efface {

void write_safetensors(const std::filesystem::path& file,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::unordered_set<std::string> names;
  uint64_t offset = 0;
  // Appended without a look-up: assignment by key is linear in an ordered object.
  auto& entries = header.get_ref<nlohmann::ordered_json::object_t&>();
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.device().is_cpu())
      throw Error(ErrorClass::storage, file.string() + ": tensor " + shown(name) + " is not on the CPU");
    if (name == "__metadata__" || !names.insert(name).second)
      throw Error(ErrorClass::storage, file.string() + ": the name " + shown(name) + " cannot be used twice");
    const uint64_t end = offset + tensor.nbytes();
    entries.emplace_back(name, nlohmann::ordered_json{{"dtype", safetensors_dtype_name(tensor.scalar_type())},
                                                      {"shape", tensor.sizes().vec()},
                                                      {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts at a multiple of 8, as the format asks

  PendingFile pending(file);
  uint8_t length[8];
  for (int byte = 0; byte < 8; ++byte) length[byte] = static_cast<uint8_t>(uint64_t{text.size()} >> 8 * byte);
  pending.append(length, sizeof(length));
  pending.append(text.data(), text.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.contiguous().resolve_conj().resolve_neg();
    pending.append(plain.numel() ? plain.data_ptr() : nullptr, plain.nbytes());
  }
  pending.publish();
}

}  // namespace efface
