// The one table behind a recipe: parsing, validation, --help and docs/recipe.md are all made from it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "recipes/recipe.hpp"
#include "recipes/yaml_entries.hpp"

namespace efface {

struct SchemaKey {
  std::string path;  ///< "train.steps"; a segment "*" is any name
  std::string
      type;  ///< "integer", "number", "text", "file", "folder", "yes/no", "one of a | b", "list of ..."
  std::string range;  ///< "0 < x <= 1", or empty
  std::string help;   ///< one line
  bool required = false;
  std::function<void(Recipe&, const YamlEntry&, const std::string& name)> set;  ///< name: what "*" stood for
  std::function<std::string(const Recipe&)>
      show;  ///< the value as YAML; empty for "*" and for what is not set
};

struct SchemaSection {
  std::string path;
  std::string shorthand;  ///< key a bare value of the section stands for, or empty
  std::string help;
};

const std::vector<SchemaKey>& schema();
const std::vector<SchemaSection>& schema_sections();
/// The key of the table that a path of a document is, or null; `name` gets what "*" stood for.
const SchemaKey* find_schema_key(const std::string& path, std::string* name = nullptr);
PathRules schema_rules();

}  // namespace efface
