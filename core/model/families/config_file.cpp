#include "core/model/families/config_file.hpp"

#include <fstream>

#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr double kLargestSize = 1e9;

}  // namespace

ConfigFile::ConfigFile(const std::filesystem::path& folder) : path_((folder / "config.json").string()) {
  std::ifstream stream(path_);
  if (!stream)
    throw Error(ErrorClass::model, path_ + ": cannot be read", "give the folder of a Hugging Face model");
  json_ = nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!json_.is_object()) throw Error(ErrorClass::model, path_ + ": not a JSON object");
}

void ConfigFile::fail(const std::string& key, const std::string& why, const std::string& remedy) const {
  throw Error(ErrorClass::model, path_ + ": " + prefix_ + key + " " + why, remedy);
}

int64_t ConfigFile::size(const std::string& key) const {
  if (!has(key)) fail(key, "is missing");
  const nlohmann::json& value = json_[key];
  if (!value.is_number_integer() || value.get<double>() < 1 || value.get<double>() > kLargestSize)
    fail(key, "is " + value.dump() + ", not a positive integer");
  return value.get<int64_t>();
}

int64_t ConfigFile::size(const std::string& key, int64_t missing) const {
  return has(key) ? size(key) : missing;
}

double ConfigFile::positive(const std::string& key) const {
  if (!has(key)) fail(key, "is missing");
  const nlohmann::json& value = json_[key];
  if (!value.is_number() || !(value.get<double>() > 0))
    fail(key, "is " + value.dump() + ", not a positive number");
  return value.get<double>();
}

double ConfigFile::positive(const std::string& key, double missing) const {
  return has(key) ? positive(key) : missing;
}

bool ConfigFile::flag(const std::string& key, bool missing) const {
  if (!has(key)) return missing;
  if (!json_[key].is_boolean()) fail(key, "is " + json_[key].dump() + ", not true or false");
  return json_[key].get<bool>();
}

std::string ConfigFile::text(const std::string& key, const std::string& missing) const {
  if (!has(key)) return missing;
  if (!json_[key].is_string()) fail(key, "is " + json_[key].dump() + ", not a string");
  return json_[key].get<std::string>();
}

std::vector<int64_t> ConfigFile::integers(const std::string& key) const {
  if (!has(key)) return {};
  const nlohmann::json& value = json_[key];
  std::vector<int64_t> integers;
  for (const nlohmann::json& one : value.is_array() ? value : nlohmann::json::array({value})) {
    if (!one.is_number_integer()) fail(key, "is " + value.dump() + ", not an integer or a list of them");
    integers.push_back(one.get<int64_t>());
  }
  return integers;
}

ConfigFile ConfigFile::section(const std::string& key) const {
  if (!has(key) || !json_[key].is_object())
    fail(key, has(key) ? "is " + json_[key].dump() + ", not an object" : "is missing");
  ConfigFile inner;
  inner.path_ = path_;
  inner.prefix_ = prefix_ + key + ".";
  inner.json_ = json_[key];
  return inner;
}

std::vector<double> ConfigFile::positives(const std::string& key, int64_t count) const {
  const nlohmann::json value = has(key) ? json_[key] : nlohmann::json();
  if (!value.is_array() || static_cast<int64_t>(value.size()) != count)
    fail(key, "is not a list of " + std::to_string(count) + " numbers");
  std::vector<double> numbers;
  for (const nlohmann::json& number : value) {
    if (!number.is_number() || !(number.get<double>() > 0))
      fail(key, "holds " + number.dump() + ", not a positive number");
    numbers.push_back(number.get<double>());
  }
  return numbers;
}

}  // namespace efface
