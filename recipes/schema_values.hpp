// Builders of table rows: each reads one YAML value into one member of Recipe, or says what is wrong with it.
#pragma once

#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "recipes/schema.hpp"

namespace efface::schema_values {

template <class T>
using Member = std::function<T&(Recipe&, const std::string& name)>;

struct Range {
  std::optional<double> above, at_least, below, at_most;
  std::string text() const;
  bool holds(double value) const;
};
inline Range at_least(double low) { return {{}, low, {}, {}}; }
inline Range above(double low) { return {low, {}, {}, {}}; }
inline Range between(double low, double high) { return {{}, low, {}, high}; }
inline Range any() { return {}; }

SchemaKey number(std::string path, Range range, std::string help, Member<double> member);
SchemaKey integer(std::string path, Range range, std::string help, Member<int64_t> member);
SchemaKey yes_no(std::string path, std::string help, Member<bool> member);
SchemaKey text(std::string path, std::string help, Member<std::string> member);
SchemaKey choice(std::string path, std::vector<std::string> allowed, std::string help,
                 Member<std::string> member);
SchemaKey path(std::string path, std::string type, std::string help, Member<std::filesystem::path> member);
SchemaKey integers(std::string path, std::string help, Member<std::vector<int64_t>> member);
/// `allowed` empty: any words.
SchemaKey words(std::string path, std::vector<std::string> allowed, std::string help,
                Member<std::vector<std::string>> member);

/// Throws Error(recipe): "file:line: 'key' ...".
[[noreturn]] void fail(const YamlEntry& entry, const std::string& what, const std::string& remedy = "");
std::string nearest_word(const std::string& word, const std::vector<std::string>& words);
double parse_number(const YamlEntry& entry);

}  // namespace efface::schema_values
