#include "recipes/recipe.hpp"

#include <set>

#include "core/storage/run_directory.hpp"
#include "core/unlearn/method.hpp"
#include "distributed/error.hpp"
#include "recipes/schema.hpp"
#include "recipes/schema_values.hpp"

namespace efface {
namespace {

[[noreturn]] void fail(const Recipe& recipe, const std::string& key, const std::string& what,
                       const std::string& remedy = "") {
  throw Error(ErrorClass::recipe, recipe.locate(key) + " " + what, remedy);
}

/// One rule for the rank: a recipe names one; an override replaces it.
void check_rank_rules(const std::vector<YamlEntry>& entries) {
  const YamlEntry* first = nullptr;
  for (const auto& entry : entries) {
    if (entry.path.rfind("nullspace.rank.", 0) != 0) continue;
    if (first && first->from_override == entry.from_override)
      schema_values::fail(entry, "is a second rule for the rank beside '" + first->path + "'",
                          "give one of them");
    first = &entry;
  }
}

/// "group={...}" replaces the group: what came before for any of its keys is gone.
void drop_replaced_group(const std::string& override_text, const PathRules& rules,
                         std::vector<YamlEntry>& entries) {
  const size_t equals = override_text.find('=');
  const std::string group = override_text.substr(0, equals);
  const size_t value = override_text.find_first_not_of(' ', equals + 1);
  if (value == std::string::npos || override_text[value] != '{' || rules.kind(group) != PathKind::section)
    return;
  // Copied, not erased in place: assigning a YAML::Node changes every node that shares its content.
  std::vector<YamlEntry> kept;
  for (const auto& entry : entries)
    if (entry.path.rfind(group + ".", 0) != 0) kept.push_back(entry);
  entries.swap(kept);
}

void check_method_args(Recipe& recipe) {
  const MethodDescription& method = find_method(recipe.method);
  std::vector<std::string> known;
  for (const auto& [name, value] : method.defaults) known.push_back(name);
  for (const auto& [name, value] : method.choices) known.push_back(name);
  std::map<std::string, std::string> words;
  for (const auto& [name, given] : recipe.method_choices) {
    const std::string key = "method_args." + name;
    const YamlEntry entry{key, YAML::Node(given), recipe.where.at(key), false};
    if (method.defaults.count(name)) {
      recipe.method_args[name] = schema_values::parse_number(entry);
    } else if (auto choice = method.choices.find(name); choice != method.choices.end()) {
      if (std::find(choice->second.begin(), choice->second.end(), given) == choice->second.end()) {
        std::string all;
        for (const auto& word : choice->second) all += (all.empty() ? "" : ", ") + word;
        fail(recipe, key, "is '" + given + "', but must be one of " + all);
      }
      words[name] = given;
    } else {
      const std::string near = schema_values::nearest_word(name, known);
      std::string all;
      for (const auto& word : known) all += (all.empty() ? "" : ", ") + word;
      fail(recipe, key, "is not a setting of " + method.name,
           near.empty() ? (all.empty() ? "it has none" : "it has " + all)
                        : "did you mean 'method_args." + near + "'?");
    }
  }
  recipe.method_choices = words;
}

void check_rows(const Recipe& recipe) {
  int64_t rows = 0;
  for (const auto& [role, count] : recipe.train.rows) rows += count;
  const bool rows_given = rows > 0;
  if (rows_given && recipe.train.batch_size > 0)
    fail(recipe, "train.batch_size", "and train.rows are both given",
         "the rows of a step are their sum; remove one");
  if (recipe.train.rows.count("text") && recipe.train.rows.at("text") > 0 && recipe.data.text_retain.empty())
    fail(recipe, "train.rows.text", "asks for text rows, but there is no 'data.text.retain'");
  if (recipe.train.warmup_steps > recipe.train.steps)
    fail(recipe, "train.warmup_steps",
         "is longer than train.steps (" + std::to_string(recipe.train.steps) + ")");
  for (const auto& [role, count] : recipe.train.rows)
    if ((role == "retain" || role == "retain_kl") && count > 0 && !recipe.data.retain.given() &&
        !recipe.data.neighbours.given() && !recipe.data.same_relation.given())
      fail(recipe, "train.rows." + role, "asks for retain rows, but there is no 'data.retain.file'");
}

void check_sections(const Recipe& recipe) {
  if (recipe.nullspace.rank_rule == "k" &&
      recipe.nullspace.rank_value != static_cast<double>(static_cast<int64_t>(recipe.nullspace.rank_value)))
    fail(recipe, "nullspace.rank.k", "must be an integer");
  if (recipe.nullspace.projection != "none" && recipe.nullspace.rank_rule == "heldout" &&
      (recipe.data.text_heldout.empty() || recipe.nullspace.max_heldout_tokens == 0))
    fail(recipe, recipe.where.count("nullspace.rank.auto") ? "nullspace.rank.auto" : "nullspace.rank.heldout",
         "needs held-out tokens", "give 'data.text.heldout', or another rule for the rank");
  const bool has_records =
      recipe.data.retain.given() || recipe.data.neighbours.given() || recipe.data.same_relation.given();
  if (recipe.nullspace.projection != "none" && recipe.data.text_covariance.empty() &&
      !(recipe.nullspace.chat_rows && has_records))
    throw Error(ErrorClass::recipe,
                recipe.file.filename().string() + ": 'nullspace' needs something to retain",
                "give 'data.text.covariance' or 'data.retain', or set 'nullspace.projection: none'");
  if (recipe.safe_response.source == "file" && recipe.safe_response.file.empty())
    fail(recipe, "safe_response.source", "is 'file', but there is no 'safe_response.file'");
  std::set<int64_t> layers(recipe.train.layers.begin(), recipe.train.layers.end());
  if (layers.size() != recipe.train.layers.size()) fail(recipe, "train.layers", "names a layer twice");
  if (!layers.empty() && *layers.rbegin() - *layers.begin() + 1 != static_cast<int64_t>(layers.size()))
    fail(recipe, "train.layers", "must be neighbours, such as [1, 2, 3]");
  if (find_method(recipe.method).needs_window && layers.empty() && recipe.trace.when == "never")
    fail(recipe, "trace.when", "is never, but " + recipe.method + " needs to know its layers",
         "give 'train.layers'");
  for (const auto& [name, source] : recipe.evaluate.probes)
    if (!source.given())
      throw Error(ErrorClass::recipe,
                  recipe.file.filename().string() + ": 'evaluate.probes." + name + "' has no file");
}

}  // namespace

std::string Recipe::locate(const std::string& key) const {
  const auto found = where.find(key);
  return (found == where.end() ? file.filename().string() : found->second) + ": '" + key + "'";
}

Recipe read_recipe(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  if (!std::filesystem::is_regular_file(file))
    throw Error(ErrorClass::recipe, file.string() + ": no such recipe", "ready ones are in recipes/configs");
  if (std::filesystem::file_size(file) > (1 << 20))
    throw Error(ErrorClass::recipe, file.string() + ": larger than 1 MiB");
  return parse_recipe(read_text_file(file), std::filesystem::absolute(file).lexically_normal(), overrides);
}

Recipe parse_recipe(const std::string& text, const std::filesystem::path& file,
                    const std::vector<std::string>& overrides) {
  const PathRules rules = schema_rules();
  std::vector<YamlEntry> entries = flatten_yaml(text, file.filename().string(), rules);
  for (const auto& override_text : overrides) {
    auto added = flatten_override(override_text, rules);
    drop_replaced_group(override_text, rules, entries);
    for (auto& entry : added) entries.push_back(std::move(entry));
  }

  Recipe recipe;
  recipe.file = file;
  check_rank_rules(entries);
  for (const auto& entry : entries) {
    if (entry.node.IsNull()) schema_values::fail(entry, "has no value", "remove the line, or give it one");
    std::string name;
    const SchemaKey* key = find_schema_key(entry.path, &name);
    // Known before it is set, so that an override of a mistyped line repairs it.
    recipe.where[entry.path] = entry.where;
    const bool replaced =
        !entry.from_override && std::any_of(entries.begin(), entries.end(), [&](const YamlEntry& other) {
          return other.from_override && other.path == entry.path;
        });
    if (!replaced) key->set(recipe, entry, name);
  }
  for (const auto& key : schema())
    if (key.required && !recipe.where.count(key.path))
      throw Error(ErrorClass::recipe,
                  file.filename().string() + ": '" + key.path + "' is missing: " + key.help);
  if (recipe.output.folder.empty())
    recipe.output.folder = std::filesystem::current_path() / "runs" / file.stem();
  if (!recipe.where.count("train.warmup_steps"))
    recipe.train.warmup_steps = std::min(recipe.train.warmup_steps, recipe.train.steps);
  check_method_args(recipe);
  check_rows(recipe);
  check_sections(recipe);
  return recipe;
}

}  // namespace efface
