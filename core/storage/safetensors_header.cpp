#include "core/storage/safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

namespace efface {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLargestHeader = 100'000'000;  // the reference implementation's limit
constexpr size_t kMostDimensions = 16;

struct DtypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array<DtypeName, 12> kDtypes{{{"F32", at::kFloat},
                                             {"F16", at::kHalf},
                                             {"BF16", at::kBFloat16},
                                             {"F64", at::kDouble},
                                             {"I64", at::kLong},
                                             {"I32", at::kInt},
                                             {"I16", at::kShort},
                                             {"I8", at::kChar},
                                             {"U8", at::kByte},
                                             {"BOOL", at::kBool},
                                             {"F8_E4M3", at::kFloat8_e4m3fn},
                                             {"F8_E5M2", at::kFloat8_e5m2}}};

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  throw Error(ErrorClass::model, file.string() + ": " + what);
}

/// What the two JSON readers share: containers are counted, scalars go to the derived class as text or
/// number. Every event that is not wanted throws, so that a hostile text costs no more than its own size.
class EventReader : public Json::json_sax_t {
 public:
  explicit EventReader(const std::filesystem::path& file) : file_(file) {}

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t value) override { return number(value); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    refuse(file_, "not valid JSON near byte " + std::to_string(position));
  }

 protected:
  virtual bool number(uint64_t value) = 0;
  virtual bool other() = 0;

  const std::filesystem::path& file_;
};

/// {"__metadata__": {text: text}, NAME: {"dtype": text, "shape": [n...], "data_offsets": [begin, end]}, ...}
class HeaderReader : public EventReader {
 public:
  using EventReader::EventReader;
  SafetensorsHeader header;

  bool start_object(size_t) override {
    if (depth_ == 2 || array_) malformed();
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (depth_ == 2 && !in_metadata_) finish_entry();
    in_metadata_ = false;
    --depth_;
    return true;
  }
  bool start_array(size_t) override {
    array_ = depth_ != 2 || in_metadata_ || array_ ? nullptr : field_ == "shape" ? &shape_ : &offsets_;
    if (!array_ || *array_ || (field_ != "shape" && field_ != "data_offsets")) malformed();
    array_->emplace();
    return true;
  }
  bool end_array() override {
    array_ = nullptr;
    return true;
  }
  bool key(string_t& text) override {
    if (depth_ == 1) {
      if (!names_.insert(text).second)
        refuse(file_, "the name " + shown(text) + " occurs twice in the header");
      in_metadata_ = text == "__metadata__";
      name_ = text;
      dtype_.reset();
      shape_.reset();
      offsets_.reset();
    } else {
      field_ = text;
    }
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ != 2 || array_) malformed();
    if (in_metadata_) {
      if (!header.metadata.emplace(field_, text).second) malformed();
      return true;
    }
    if (field_ != "dtype" || dtype_) malformed();
    for (const DtypeName& known : kDtypes)
      if (text == known.name) dtype_ = known.dtype;
    if (!dtype_)
      refuse(file_, "tensor " + shown(name_) + " has the dtype " + shown(text) + ", which is not read");
    return true;
  }

 protected:
  bool number(uint64_t value) override {
    if (!array_) malformed();
    if (array_->value().size() == kMostDimensions)
      refuse(file_,
             "tensor " + shown(name_) + " has more than " + std::to_string(kMostDimensions) + " dimensions");
    array_->value().push_back(value);
    return true;
  }
  bool other() override { malformed(); }

 private:
  [[noreturn]] void malformed() const {
    refuse(file_, "the header is not one of safetensors" + (name_.empty() ? "" : ", at " + shown(name_)));
  }

  void finish_entry() {
    if (!dtype_ || !shape_ || !offsets_ || offsets_->size() != 2) malformed();
    SafetensorsEntry entry;
    entry.name = name_;
    entry.dtype = *dtype_;
    entry.begin = offsets_->at(0);
    entry.end = offsets_->at(1);
    // Zero dimensions count as one in the limit: strides are products of the others.
    uint64_t elements = 1, limit = c10::elementSize(*dtype_);
    bool fits = true;
    for (uint64_t size : *shape_) {
      fits =
          fits && !__builtin_mul_overflow(limit, std::max<uint64_t>(size, 1), &limit) && limit <= INT64_MAX;
      elements *= size;
      entry.shape.push_back(static_cast<int64_t>(size));
    }
    if (!fits) refuse(file_, "tensor " + shown(name_) + " has an impossible shape");
    if (entry.begin > entry.end || entry.end - entry.begin != elements * c10::elementSize(*dtype_))
      refuse(file_, "tensor " + shown(name_) + ": its shape and its byte range do not agree");
    header.entries.push_back(std::move(entry));
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  std::string name_, field_;
  std::optional<at::ScalarType> dtype_;
  std::optional<std::vector<uint64_t>> shape_, offsets_;
  std::optional<std::vector<uint64_t>>* array_ = nullptr;
  std::unordered_set<std::string> names_;
};

/// {"metadata": anything, "weight_map": {NAME: FILE, ...}}
class IndexReader : public EventReader {
 public:
  using EventReader::EventReader;
  std::map<std::string, std::string> files;
  bool found = false;

  bool start_object(size_t) override {
    ++depth_;
    if (depth_ == 2 && section_ == "weight_map") {
      if (found) refuse(file_, "weight_map occurs twice");
      found = inside_ = true;
    } else if (inside_) {
      other();
    }
    return true;
  }
  bool end_object() override {
    if (depth_-- == 2) inside_ = false;
    return true;
  }
  bool start_array(size_t) override {
    ++depth_;
    return inside_ ? other() : true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& text) override {
    if (depth_ == 1)
      section_ = text;
    else if (inside_)
      name_ = text;
    return true;
  }
  bool string(string_t& text) override {
    if (!inside_) return true;
    const std::filesystem::path path(text);
    const bool leaves = path.is_absolute() || text.find('\0') != std::string::npos ||
                        std::any_of(path.begin(), path.end(), [](const auto& part) { return part == ".."; });
    if (text.empty() || leaves) refuse(file_, "names a file outside its folder: " + shown(text));
    if (!files.emplace(name_, text).second) refuse(file_, "the name " + shown(name_) + " occurs twice");
    return true;
  }

 protected:
  bool number(uint64_t) override { return other(); }
  bool other() override {
    if (inside_) refuse(file_, "the file of " + shown(name_) + " is not a text");
    return true;
  }

 private:
  int depth_ = 0;
  bool inside_ = false;
  std::string section_, name_;
};

}  // namespace

SafetensorsHeader read_safetensors_header(const MappedFile& file) {
  const auto& path = file.path();
  if (file.size() < 8) refuse(path, "is too short for a safetensors file");
  uint64_t length = 0;
  for (int byte = 7; byte >= 0; --byte) length = length << 8 | file.data()[byte];
  if (length > file.size() - 8)
    refuse(path, "its header claims " + std::to_string(length) + " bytes, the file has " +
                     std::to_string(file.size() - 8) + " (cut short, or not a safetensors file)");
  if (length > kLargestHeader) refuse(path, "its header is larger than 100 MB");
  const char* text = reinterpret_cast<const char*>(file.data()) + 8;
  if (length < 2 || text[0] != '{') refuse(path, "is not a safetensors file");

  HeaderReader reader(path);
  Json::sax_parse(text, text + length, &reader);
  SafetensorsHeader header = std::move(reader.header);
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  const uint64_t start = 8 + length, available = file.size() - start;
  uint64_t expected = 0;
  for (SafetensorsEntry& entry : header.entries) {
    if (entry.end > available)
      refuse(path, "tensor " + shown(entry.name) + " ends at byte " + std::to_string(entry.end) +
                       " of the data, which has " + std::to_string(available) + " (the file is cut short)");
    if (entry.begin != expected)
      refuse(path, "tensor " + shown(entry.name) +
                       (entry.begin < expected ? " overlaps the one before" : " leaves a hole before it"));
    expected = entry.end;
    entry.begin += start;
    entry.end += start;
  }
  if (expected != available)
    refuse(path, "has " + std::to_string(available - expected) + " bytes that belong to no tensor");
  return header;
}

std::map<std::string, std::string> read_safetensors_index(const std::filesystem::path& index) {
  const MappedFile file(index, ErrorClass::model);
  const char* text = reinterpret_cast<const char*>(file.data());
  IndexReader reader(index);
  if (file.size() == 0) refuse(index, "is empty");
  Json::sax_parse(text, text + file.size(), &reader);
  if (!reader.found) refuse(index, "has no weight_map");
  return std::move(reader.files);
}

const char* safetensors_dtype_name(at::ScalarType dtype) {
  for (const DtypeName& known : kDtypes)
    if (known.dtype == dtype) return known.name;
  throw Error(ErrorClass::model, std::string("safetensors: cannot store the dtype ") + c10::toString(dtype));
}

}  // namespace efface
