#include "core/subspace/store_manifest.hpp"

#include <algorithm>
#include <cmath>

#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int kFormat = 2;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kChecksum = "crc32c";
constexpr const char* kRemedy = "delete the folder and run the stage again";

InputId known_input(const std::string& name) {
  if (const auto id = input_from_name(name)) return *id;
  throw Error(ErrorClass::storage, "manifest.json names an unknown input '" + name + "'", kRemedy);
}

bool is_object_at(const nlohmann::json& value, const char* field) {
  const auto found = value.find(field);
  return found != value.end() && found->is_object();
}

uint32_t checksum_of(nlohmann::json manifest) {
  manifest.erase(kChecksum);
  const std::string text = manifest.dump();
  return crc32c(text.data(), text.size());
}

std::string text_of(const nlohmann::json& manifest) { return manifest.dump(1) + "\n"; }

}  // namespace

nlohmann::json make_manifest(const std::string& kind, const nlohmann::json& key, nlohmann::json inputs,
                             nlohmann::json files) {
  return {{"format", kFormat},
          {"kind", kind},
          {"key", key},
          {"inputs", std::move(inputs)},
          {"files", std::move(files)}};
}

nlohmann::json read_manifest(const std::filesystem::path& folder, const std::string& kind) {
  const std::filesystem::path file = folder / kManifest;
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    throw Error(ErrorClass::storage, file.string() + " is missing", "run the stage that writes it again");
  const std::string text = read_text_file(file);
  auto manifest = nlohmann::json::parse(text, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("kind") || manifest["kind"] != kind ||
      !manifest.contains("format") || manifest["format"] != kFormat)
    throw Error(ErrorClass::storage, file.string() + " is not a manifest of " + kind + " this version reads",
                kRemedy);
  // The text itself is compared too: the value would not show a changed space or a name given twice.
  if (!manifest.contains(kChecksum) || manifest[kChecksum] != checksum_of(manifest) ||
      text_of(manifest) != text)
    throw Error(ErrorClass::storage, file.string() + " is damaged: the checksum does not match", kRemedy);
  if (!manifest.contains("key") || !is_object_at(manifest, "inputs") || !is_object_at(manifest, "files"))
    throw Error(ErrorClass::storage, file.string() + " lacks its key, inputs or files", kRemedy);
  return manifest;
}

void write_manifest(const std::filesystem::path& folder, nlohmann::json manifest) {
  manifest[kChecksum] = checksum_of(manifest);
  write_text_file(folder / kManifest, text_of(manifest));
}

std::vector<InputId> inputs_of_manifest(const nlohmann::json& manifest) {
  std::vector<InputId> inputs;
  for (const auto& [name, entry] : manifest.at("inputs").items()) inputs.push_back(known_input(name));
  std::sort(inputs.begin(), inputs.end());
  return inputs;
}

ManifestEntry::ManifestEntry(const nlohmann::json& manifest, const std::filesystem::path& folder,
                             const InputId& id) {
  const auto& inputs = manifest.at("inputs");
  const auto found = inputs.find(input_name(id));
  if (found == inputs.end())
    throw Error(ErrorClass::storage, folder.string() + " has nothing of input " + input_name(id));
  entry_ = &*found;
  where_ = (folder / kManifest).string() + ": input " + input_name(id);
}

void ManifestEntry::refuse(const char* field, const std::string& wanted) const {
  throw Error(ErrorClass::storage, where_ + ": '" + field + "' is not " + wanted, kRemedy);
}

const nlohmann::json& ManifestEntry::at(const char* field) const {
  if (!entry_->is_object() || !entry_->contains(field)) refuse(field, "there");
  return (*entry_)[field];
}

int64_t ManifestEntry::integer(const char* field, int64_t least, int64_t most) const {
  const nlohmann::json& value = at(field);
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(most));
  if (!fits || value.get<int64_t>() < least || value.get<int64_t>() > most)
    refuse(field, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  return value.get<int64_t>();
}

double ManifestEntry::number(const char* field) const {
  const nlohmann::json& value = at(field);
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0)
    refuse(field, "a number of at least 0");
  return value.get<double>();
}

bool ManifestEntry::flag(const char* field) const {
  const nlohmann::json& value = at(field);
  if (!value.is_boolean()) refuse(field, "true or false");
  return value.get<bool>();
}

std::string ManifestEntry::text(const char* field) const {
  const nlohmann::json& value = at(field);
  if (!value.is_string()) refuse(field, "a text");
  return value.get<std::string>();
}

StoreFileWriter::StoreFileWriter(std::filesystem::path file)
    : path_(std::move(file)), file_(Hdf5File::create(path_)) {}

void StoreFileWriter::write(const std::string& dataset, const at::Tensor& tensor) {
  file_.write(dataset, tensor);
  checksums_[dataset] = file_.checksum(dataset);
}

nlohmann::json StoreFileWriter::close() {
  file_.close();
  return {{path_.filename().string(),
           {{"bytes", std::filesystem::file_size(path_)}, {kChecksum, std::move(checksums_)}}}};
}

StoreFile::StoreFile(const nlohmann::json& manifest, const std::filesystem::path& folder,
                     const std::string& file)
    : path_(folder / file) {
  if (file.empty() || file == "." || file == ".." || std::filesystem::path(file).filename() != file)
    throw Error(ErrorClass::storage,
                (folder / kManifest).string() + " names a file outside its folder: '" + file + "'", kRemedy);
  const auto& files = manifest.at("files");
  const auto listed = files.find(file);
  if (listed == files.end() || !listed->is_object() || !listed->contains("bytes") ||
      !(*listed)["bytes"].is_number_unsigned() || !is_object_at(*listed, kChecksum))
    throw Error(ErrorClass::storage, (folder / kManifest).string() + " does not list " + file, kRemedy);
  std::error_code error;
  const auto size = std::filesystem::file_size(path_, error);
  if (error) throw Error(ErrorClass::storage, path_.string() + " is missing", kRemedy);
  if ((*listed)["bytes"] != size)
    throw Error(ErrorClass::storage,
                path_.string() + " has " + std::to_string(size) + " bytes, not the " +
                    (*listed)["bytes"].dump() + " that the manifest lists",
                kRemedy);
  checksums_ = (*listed)[kChecksum];
  file_ = Hdf5File::open(path_);
}

void StoreFile::check(const std::string& dataset, const std::vector<int64_t>& shape) const {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorClass::storage, path_.string() + ": " + dataset + ": " + what, kRemedy);
  };
  if (!checksums_.contains(dataset)) refuse("is not listed in the manifest");
  if (checksums_[dataset] != file_.checksum(dataset)) refuse("is not what the manifest lists");
  if (file_.shape(dataset) != shape) refuse("has another shape than the manifest says");
}

at::Tensor StoreFile::read(const std::string& dataset, const std::vector<int64_t>& shape) const {
  check(dataset, shape);
  return file_.read(dataset);
}

void StoreFile::verify(const std::string& dataset) const { read(dataset, file_.shape(dataset)); }

at::Tensor StoreFile::read_rows(const std::string& dataset, const std::vector<int64_t>& shape, int64_t begin,
                                int64_t end) const {
  check(dataset, shape);
  return file_.read_rows(dataset, begin, end);
}

}  // namespace efface
