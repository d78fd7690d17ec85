#include "core/text/json_field.hpp"

#include <fstream>

#include "distributed/error.hpp"

namespace efface {

JsonField JsonField::operator[](const std::string& key) const {
  if (!value_->is_object()) fail("an object is expected");
  const auto found = value_->find(key);
  if (found == value_->end()) fail("'" + key + "' is missing");
  return JsonField(*found, file_, path_.empty() ? key : path_ + "." + key);
}

JsonField JsonField::operator[](size_t index) const {
  if (!value_->is_array() || index >= value_->size()) fail("a list of more items is expected");
  return JsonField((*value_)[index], file_, path_ + "[" + std::to_string(index) + "]");
}

JsonField JsonField::optional(const std::string& key) const {
  static const nlohmann::json null;
  return has(key) ? (*this)[key] : JsonField(null, file_, key);
}

bool JsonField::has(const std::string& key) const {
  if (!value_->is_object()) return false;
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

std::vector<JsonField> JsonField::items() const {
  if (!value_->is_array()) fail("a list is expected");
  std::vector<JsonField> fields;
  for (size_t i = 0; i < value_->size(); ++i) fields.push_back((*this)[i]);
  return fields;
}

std::string JsonField::text() const {
  if (!value_->is_string()) fail("a string is expected");
  return value_->get<std::string>();
}

int64_t JsonField::integer() const {
  if (!value_->is_number_integer()) fail("an integer is expected");
  return value_->get<int64_t>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail("true or false is expected");
  return value_->get<bool>();
}

std::string JsonField::text_or(const std::string& key, const std::string& otherwise) const {
  return has(key) ? (*this)[key].text() : otherwise;
}

bool JsonField::boolean_or(const std::string& key, bool otherwise) const {
  return has(key) ? (*this)[key].boolean() : otherwise;
}

void JsonField::fail(const std::string& what) const {
  throw Error(ErrorClass::model, file_->string() + ": " + (path_.empty() ? "" : path_ + ": ") + what);
}

nlohmann::json parse_json_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(ErrorClass::model, file.string() + ": cannot be opened");
  try {
    return nlohmann::json::parse(stream);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorClass::model, file.string() + ": not valid JSON: " + error.what());
  }
}

}  // namespace efface
