// config.json as the families read it: every message names the file and the key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace efface {

/// All readers throw Error(model) for a value of another type or out of range. A key that is null is absent.
class ConfigFile {
 public:
  explicit ConfigFile(const std::filesystem::path& folder);

  const nlohmann::json& json() const { return json_; }
  bool has(const std::string& key) const { return json_.contains(key) && !json_[key].is_null(); }
  [[noreturn]] void fail(const std::string& key, const std::string& why,
                         const std::string& remedy = "") const;

  int64_t size(const std::string& key) const;  ///< at least 1; must be there
  int64_t size(const std::string& key, int64_t missing) const;
  double positive(const std::string& key) const;  ///< must be there
  double positive(const std::string& key, double missing) const;
  bool flag(const std::string& key, bool missing) const;
  std::string text(const std::string& key, const std::string& missing) const;
  std::vector<int64_t> integers(const std::string& key) const;  ///< an integer or a list; {} when absent

  /// An object inside, "rope_scaling"; messages name "rope_scaling.factor".
  ConfigFile section(const std::string& key) const;
  std::vector<double> positives(const std::string& key, int64_t count) const;  ///< a list; must be there

 private:
  ConfigFile() = default;
  std::string path_, prefix_;
  nlohmann::json json_;
};

}  // namespace efface
