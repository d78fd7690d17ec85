#include "recipes/yaml_entries.hpp"

#include <set>

#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 24;
constexpr int kMaxNodes = 20000;

class Walker {
 public:
  Walker(std::string name, bool is_override, const PathRules& rules)
      : name_(std::move(name)), is_override_(is_override), rules_(rules) {}

  void walk(const YAML::Node& node, const std::string& prefix, int line, int depth) {
    if (depth > kMaxDepth) fail(line, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    if (node.IsMap()) return walk_map(node, prefix, depth);
    if (node.IsNull()) return;
    const std::string short_for = prefix.empty() ? "" : rules_.shorthand(prefix);
    if (short_for.empty() || node.IsSequence())
      fail(line, (prefix.empty() ? "a recipe is" : "'" + prefix + "' is") +
                     " a group of keys (key: value), not " +
                     (node.IsSequence() ? "a list" : "a single value"));
    add(short_for, node, line);
  }

  std::vector<YamlEntry> take() { return std::move(entries_); }

 private:
  void walk_map(const YAML::Node& map, const std::string& prefix, int depth) {
    std::set<std::string> seen;
    for (const auto& item : map) {
      const int line = item.first.Mark().line;
      if (!item.first.IsScalar()) fail(line, "a key must be a word");
      const std::string key = item.first.Scalar();
      const std::string path = prefix.empty() ? key : prefix + "." + key;
      if (!seen.insert(key).second) fail(line, "key '" + path + "' is given twice");
      switch (rules_.kind(path)) {
        case PathKind::leaf:
          add(path, item.second, line);
          break;
        case PathKind::section:
          walk(item.second, path, line, depth + 1);
          break;
        case PathKind::unknown:
          unknown(path, line);
      }
    }
  }

  [[noreturn]] void unknown(const std::string& path, int line) {
    const std::string nearest = rules_.nearest(path);
    const std::string remedy =
        nearest.empty() ? "`efface validate --reference` lists every key" : "did you mean '" + nearest + "'?";
    throw Error(ErrorClass::recipe, where(line) + ": unknown key '" + path + "'", remedy);
  }

  void add(const std::string& path, const YAML::Node& node, int line) {
    count(node, line, 0);
    entries_.push_back({path, node, where(line), is_override_});
  }

  /// Aliases are shared nodes: a small file can hold a tree of any size, so values are counted as visited.
  void count(const YAML::Node& node, int line, int depth) {
    if (++nodes_ > kMaxNodes) fail(line, "more than " + std::to_string(kMaxNodes) + " values");
    if (depth > kMaxDepth) fail(line, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    if (node.IsSequence())
      for (const auto& item : node) count(item, line, depth + 1);
    if (node.IsMap())
      for (const auto& item : node) count(item.second, line, depth + 1);
  }

  std::string where(int line) const {
    return is_override_ ? "override '" + name_ + "'" : name_ + ":" + std::to_string(line + 1);
  }
  [[noreturn]] void fail(int line, const std::string& what) {
    throw Error(ErrorClass::recipe, where(line) + ": " + what);
  }

  std::string name_;
  bool is_override_;
  const PathRules& rules_;
  std::vector<YamlEntry> entries_;
  int nodes_ = 0;
};

YAML::Node load(const std::string& text, const std::string& where_if_failed, bool with_line) {
  if (text.size() > kMaxBytes) throw Error(ErrorClass::recipe, where_if_failed + ": larger than 1 MiB");
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    const std::string line = with_line ? ":" + std::to_string(error.mark.line + 1) : "";
    throw Error(ErrorClass::recipe, where_if_failed + line + ": not valid YAML: " + error.msg);
  }
}

}  // namespace

std::vector<YamlEntry> flatten_yaml(const std::string& text, const std::string& file_name,
                                    const PathRules& rules) {
  Walker walker(file_name, false, rules);
  walker.walk(load(text, file_name, true), "", 0, 0);
  return walker.take();
}

std::vector<YamlEntry> flatten_override(const std::string& override_text, const PathRules& rules) {
  const size_t equals = override_text.find('=');
  const std::string name = "override '" + override_text + "'";
  if (equals == std::string::npos || equals == 0)
    throw Error(ErrorClass::recipe, name + ": not of the form key.sub=value");
  // A map of one key inside the other, so that an override takes the same way as a line of the file.
  YAML::Node node = load(override_text.substr(equals + 1), name, false);
  std::string path = override_text.substr(0, equals);
  while (true) {
    const size_t dot = path.rfind('.');
    YAML::Node outer(YAML::NodeType::Map);
    outer[dot == std::string::npos ? path : path.substr(dot + 1)] = node;
    node.reset(outer);
    if (dot == std::string::npos) break;
    path.resize(dot);
  }
  Walker walker(override_text, true, rules);
  walker.walk(node, "", 0, 0);
  return walker.take();
}

int edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1, 0));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      const int swap_cost = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + swap_cost});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

}  // namespace efface
