// A YAML document as a flat list of (key path, value, where it stands), with limits on size and depth.
#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <string>
#include <vector>

namespace efface {

struct YamlEntry {
  std::string path;   ///< "nullspace.rank.energy"
  YAML::Node node;    ///< a scalar, a list, or null
  std::string where;  ///< "recipe.yaml:12" or "override 'nullspace.rank.energy=0.9'"
  bool from_override = false;
};

/// What the schema says about a path while the document is walked.
enum class PathKind { leaf, section, unknown };
struct PathRules {
  std::function<PathKind(const std::string& path)> kind;
  /// The key a section's bare value is short for ("model: x" is "model.path: x"); empty: none.
  std::function<std::string(const std::string& path)> shorthand;
  /// The nearest right name, or empty.
  std::function<std::string(const std::string& path)> nearest;
};

/// Throws Error(recipe), naming file and line: not YAML, larger than 1 MiB, nested deeper than 24, more than
/// 20,000 values (aliases counted each time), a key twice, an unknown key.
std::vector<YamlEntry> flatten_yaml(const std::string& text, const std::string& file_name,
                                    const PathRules& rules);
/// "key.sub=value"; the value is YAML.
std::vector<YamlEntry> flatten_override(const std::string& override_text, const PathRules& rules);

/// Optimal string alignment distance; used for "did you mean".
int edit_distance(const std::string& a, const std::string& b);

}  // namespace efface
