// The schema as text: docs/recipe.md, terminal help, and a recipe with every default filled in.
#include <sstream>

#include "core/unlearn/method.hpp"
#include "recipes/recipe.hpp"
#include "recipes/schema.hpp"

namespace efface {
namespace {

/// A recipe of defaults, to show them. Copies are made because showing a map's member makes it.
std::string default_of(const SchemaKey& key) {
  if (!key.show) return "";
  const Recipe defaults;
  return key.show(defaults);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

std::string code(const std::string& text) { return text.empty() ? "" : "`" + text + "`"; }

bool inside(const std::string& path, const std::string& section) {
  return path == section || path.rfind(section + ".", 0) == 0;
}

void write_methods(std::ostream& out) {
  out << "## Methods and their `method_args`\n\n";
  for (const auto& method : methods()) {
    out << "**" << method.name << "**: " << method.summary << "\n\n";
    if (method.defaults.empty() && method.choices.empty()) {
      out << "It has no settings.\n\n";
      continue;
    }
    out << "| key | default | what |\n|---|---|---|\n";
    const auto help = [&](const std::string& key) {
      const auto found = method.help.find(key);
      return found == method.help.end() ? std::string() : escaped(found->second);
    };
    for (const auto& [key, value] : method.defaults)
      out << "| `method_args." << key << "` | `" << value << "` | " << help(key) << " |\n";
    for (const auto& [key, allowed] : method.choices) {
      out << "| `method_args." << key << "` | `" << method.choices_default.at(key) << "` | " << help(key)
          << " One of";
      for (const auto& word : allowed) out << " `" << word << "`";
      out << ". |\n";
    }
    out << "\n";
  }
}

const char kIntroduction[] = R"(# Recipe reference

Every key a recipe may have, from the table that also reads it (`efface validate --reference` prints this page).
A recipe is YAML. `efface run recipe.yaml train.steps=5 model=path` overrides keys after it; an override's value is
YAML too. Paths in a recipe are relative to its folder, those of an override to where you are. An unknown key, a
wrong type or a value out of range ends the program with exit code 3 and the file, line and key.

The ready recipes in `recipes/configs` are commented; start from one of them.

)";

}  // namespace

std::string recipe_reference() {
  std::ostringstream out;
  out << kIntroduction;
  for (const auto& section : schema_sections()) {
    if (section.help.empty() || section.path == "method_args") continue;
    out << "## `" << section.path << "`\n\n" << section.help;
    if (!section.shorthand.empty()) out << " A bare value is short for `" << section.shorthand << "`.";
    out << "\n\n| key | type | range | default | what |\n|---|---|---|---|---|\n";
    for (const auto& key : schema()) {
      if (!inside(key.path, section.path)) continue;
      const std::string fallback = key.required ? "required" : code(escaped(default_of(key)));
      out << "| `" << key.path << "` | " << escaped(key.type) << " | " << escaped(key.range) << " | "
          << fallback << " | " << escaped(key.help) << " |\n";
    }
    out << "\n";
  }
  write_methods(out);
  return out.str();
}

std::string recipe_help() {
  std::ostringstream out;
  for (const auto& key : schema()) {
    if (key.path.find(".columns.") != std::string::npos) continue;
    out << "  " << key.path << std::string(key.path.size() < 34 ? 34 - key.path.size() : 1, ' ') << key.help;
    const std::string fallback = default_of(key);
    if (!fallback.empty()) out << " [" << fallback << "]";
    out << "\n";
  }
  return out.str();
}

std::string effective_recipe(const Recipe& given) {
  const Recipe recipe = given;
  YAML::Node root(YAML::NodeType::Map);
  const auto put = [&](const std::string& path, const YAML::Node& value) {
    std::vector<std::string> parts;
    std::stringstream stream(path);
    for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
    YAML::Node node = root;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      if (!node[parts[i]]) node[parts[i]] = YAML::Node(YAML::NodeType::Map);
      node.reset(node[parts[i]]);
    }
    node[parts.back()] = value;
  };
  for (const auto& key : schema()) {
    const std::string value = key.show ? key.show(recipe) : "";
    if (!value.empty()) put(key.path, YAML::Load(value));
  }
  for (const auto& [name, text] : recipe.safe_response.parts)
    put("safe_response.parts." + name, YAML::Node(text));
  for (const auto& [name, value] : recipe.method_args) put("method_args." + name, YAML::Node(value));
  for (const auto& [name, value] : recipe.method_choices) put("method_args." + name, YAML::Node(value));
  for (const auto& [name, source] : recipe.evaluate.probes) {
    const std::string at = "evaluate.probes." + name;
    put(at + ".file", YAML::Node(source.file.string()));
    put(at + ".skip", YAML::Node(source.skip));
    put(at + ".max", YAML::Node(source.max));
  }
  return YAML::Dump(root) + "\n";
}

}  // namespace efface
