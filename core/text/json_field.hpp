// A value of a JSON file that knows where it stands, so that every complaint names file and field.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace efface {

class JsonField {
 public:
  /// The file's top value. Both must outlive the field and everything reached from it.
  JsonField(const nlohmann::json& value, const std::filesystem::path& file) : value_(&value), file_(&file) {}

  JsonField operator[](const std::string& key) const;  ///< Error(model) when missing or not an object
  JsonField operator[](size_t index) const;
  JsonField optional(const std::string& key) const;  ///< the field, or a null one when missing
  bool has(const std::string& key) const;            ///< there, and not null
  bool is_null() const { return value_->is_null(); }
  std::vector<JsonField> items() const;  ///< of an array

  std::string text() const;
  int64_t integer() const;
  bool boolean() const;
  std::string text_or(const std::string& key, const std::string& otherwise) const;
  bool boolean_or(const std::string& key, bool otherwise) const;
  const nlohmann::json& value() const { return *value_; }

  /// Throws Error(model): "FILE: FIELD: what".
  [[noreturn]] void fail(const std::string& what) const;

 private:
  JsonField(const nlohmann::json& value, const std::filesystem::path* file, std::string path)
      : value_(&value), file_(file), path_(std::move(path)) {}

  const nlohmann::json* value_;
  const std::filesystem::path* file_;
  std::string path_;
};

/// The file parsed; Error(model) when it is missing or not JSON.
nlohmann::json parse_json_file(const std::filesystem::path& file);

}  // namespace efface
