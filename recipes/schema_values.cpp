#include "recipes/schema_values.hpp"

#include <charconv>
#include <cmath>

#include "distributed/error.hpp"

namespace efface::schema_values {
namespace {

std::string plain(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string shown(const YAML::Node& node) {
  if (node.IsScalar()) return "'" + node.Scalar().substr(0, 60) + "'";
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a group of keys";
  return "nothing";
}

const std::string& scalar(const YamlEntry& entry, const std::string& type) {
  if (!entry.node.IsScalar()) fail(entry, "must be " + type + ", not " + shown(entry.node));
  return entry.node.Scalar();
}

std::string with_article(const std::string& type) {
  return (std::string("aeiou").find(type[0]) != std::string::npos ? "an " : "a ") + type;
}

int64_t parse_integer(const YamlEntry& entry, const YAML::Node& node) {
  if (!node.IsScalar()) fail(entry, "must be an integer, not " + shown(node));
  std::string digits;
  for (char c : node.Scalar())
    if (c != '_') digits += c;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size())
    fail(entry, "must be an integer, not " + shown(node));
  return value;
}

void check(const YamlEntry& entry, double value, const Range& range) {
  if (!range.holds(value)) fail(entry, "is " + plain(value) + ", but must be " + range.text());
}

std::string yaml_quoted(const std::string& value) {
  YAML::Emitter out;
  out << YAML::DoubleQuoted << value;
  return out.c_str();
}

std::string joined(const std::vector<std::string>& words, const std::string& separator) {
  std::string all;
  for (const auto& word : words) all += (all.empty() ? "" : separator) + word;
  return all;
}

void check_word(const YamlEntry& entry, const std::string& word, const std::vector<std::string>& allowed) {
  if (allowed.empty() || std::find(allowed.begin(), allowed.end(), word) != allowed.end()) return;
  const std::string near = nearest_word(word, allowed);
  fail(entry, "is '" + word.substr(0, 60) + "', but must be one of " + joined(allowed, ", "),
       near.empty() ? "" : "did you mean '" + near + "'?");
}

}  // namespace

std::string Range::text() const {
  std::string low, high;
  if (above) low = plain(*above) + " < ";
  if (at_least) low = plain(*at_least) + " <= ";
  if (below) high = " < " + plain(*below);
  if (at_most) high = " <= " + plain(*at_most);
  if (low.empty() && high.empty()) return "";
  if (high.empty()) return std::string(above ? "> " : ">= ") + plain(above ? *above : *at_least);
  return low + "x" + high;
}

bool Range::holds(double value) const {
  return std::isfinite(value) && !(above && value <= *above) && !(at_least && value < *at_least) &&
         !(below && value >= *below) && !(at_most && value > *at_most);
}

void fail(const YamlEntry& entry, const std::string& what, const std::string& remedy) {
  throw Error(ErrorClass::recipe, entry.where + ": '" + entry.path + "' " + what, remedy);
}

std::string nearest_word(const std::string& word, const std::vector<std::string>& words) {
  std::string best;
  int best_distance = static_cast<int>(std::max<size_t>(2, word.size() / 3)) + 1;
  for (const auto& candidate : words) {
    const int distance = edit_distance(word, candidate);
    if (distance < best_distance) best_distance = distance, best = candidate;
  }
  return best;
}

double parse_number(const YamlEntry& entry) {
  const std::string& value = scalar(entry, "a number");
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size())
    fail(entry, "must be a number, not " + shown(entry.node));
  return number;
}

SchemaKey number(std::string path, Range range, std::string help, Member<double> member) {
  auto set = [range, member](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    const double value = parse_number(entry);
    check(entry, value, range);
    member(recipe, name) = value;
  };
  auto show = [member](const Recipe& recipe) { return plain(member(const_cast<Recipe&>(recipe), "")); };
  return {std::move(path), "number", range.text(), std::move(help), false, set, show};
}

SchemaKey integer(std::string path, Range range, std::string help, Member<int64_t> member) {
  auto set = [range, member](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    const int64_t value = parse_integer(entry, entry.node);
    check(entry, static_cast<double>(value), range);
    member(recipe, name) = value;
  };
  auto show = [member](const Recipe& recipe) {
    return std::to_string(member(const_cast<Recipe&>(recipe), ""));
  };
  return {std::move(path), "integer", range.text(), std::move(help), false, set, show};
}

SchemaKey yes_no(std::string path, std::string help, Member<bool> member) {
  auto set = [member](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    const std::string& value = scalar(entry, "yes or no");
    if (value == "true" || value == "yes" || value == "on") {
      member(recipe, name) = true;
    } else if (value == "false" || value == "no" || value == "off") {
      member(recipe, name) = false;
    } else {
      fail(entry, "must be yes or no, not " + shown(entry.node));
    }
  };
  auto show = [member](const Recipe& recipe) {
    return std::string(member(const_cast<Recipe&>(recipe), "") ? "yes" : "no");
  };
  return {std::move(path), "yes/no", "", std::move(help), false, set, show};
}

SchemaKey text(std::string path, std::string help, Member<std::string> member) {
  auto set = [member](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    member(recipe, name) = scalar(entry, "a text");
  };
  auto show = [member](const Recipe& recipe) { return yaml_quoted(member(const_cast<Recipe&>(recipe), "")); };
  return {std::move(path), "text", "", std::move(help), false, set, show};
}

SchemaKey choice(std::string path, std::vector<std::string> allowed, std::string help,
                 Member<std::string> member) {
  auto set = [member, allowed](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    const std::string& value = scalar(entry, "one of " + joined(allowed, ", "));
    check_word(entry, value, allowed);
    member(recipe, name) = value;
  };
  auto show = [member](const Recipe& recipe) { return member(const_cast<Recipe&>(recipe), ""); };
  return {std::move(path), "one of " + joined(allowed, " | "), "", std::move(help), false, set, show};
}

SchemaKey path(std::string key, std::string type, std::string help, Member<std::filesystem::path> member) {
  auto set = [member, type](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    const std::string& value = scalar(entry, with_article(type));
    if (value.empty()) fail(entry, "is empty, but must name " + with_article(type));
    const auto base = entry.from_override ? std::filesystem::current_path() : recipe.file.parent_path();
    member(recipe, name) = std::filesystem::absolute(base / value).lexically_normal();
  };
  auto show = [member](const Recipe& recipe) {
    const auto& value = member(const_cast<Recipe&>(recipe), "");
    return value.empty() ? std::string() : yaml_quoted(value.string());
  };
  return {std::move(key), std::move(type), "", std::move(help), false, set, show};
}

SchemaKey integers(std::string path, std::string help, Member<std::vector<int64_t>> member) {
  auto set = [member](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    if (!entry.node.IsSequence())
      fail(entry, "must be a list of integers such as [1, 2, 3], not " + shown(entry.node));
    std::vector<int64_t> values;
    for (const auto& item : entry.node) {
      values.push_back(parse_integer(entry, item));
      check(entry, static_cast<double>(values.back()), at_least(0));
    }
    member(recipe, name) = values;
  };
  auto show = [member](const Recipe& recipe) {
    std::vector<std::string> words;
    for (int64_t value : member(const_cast<Recipe&>(recipe), "")) words.push_back(std::to_string(value));
    std::string list(1, '[');
    list += joined(words, ", ");
    return list += ']';
  };
  return {std::move(path), "list of integers", "each >= 0", std::move(help), false, set, show};
}

SchemaKey words(std::string path, std::vector<std::string> allowed, std::string help,
                Member<std::vector<std::string>> member) {
  auto set = [member, allowed](Recipe& recipe, const YamlEntry& entry, const std::string& name) {
    std::vector<std::string> values;
    if (entry.node.IsScalar())
      values = {entry.node.Scalar()};
    else if (!entry.node.IsSequence())
      fail(entry, "must be a list such as [a, b], not " + shown(entry.node));
    for (const auto& item : entry.node) {
      if (!item.IsScalar()) fail(entry, "must be a list of words, not " + shown(item) + " inside a list");
      values.push_back(item.Scalar());
    }
    for (const auto& value : values) check_word(entry, value, allowed);
    member(recipe, name) = values;
  };
  auto show = [member](const Recipe& recipe) {
    std::string list(1, '[');
    list += joined(member(const_cast<Recipe&>(recipe), ""), ", ");
    return list += ']';
  };
  const std::string type = allowed.empty() ? "list of texts" : "list of " + joined(allowed, " | ");
  return {std::move(path), type, "", std::move(help), false, set, show};
}

}  // namespace efface::schema_values
