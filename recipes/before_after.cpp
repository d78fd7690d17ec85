#include <algorithm>
#include <iomanip>
#include <sstream>

#include "recipes/pipeline.hpp"
#include "recipes/progress.hpp"

namespace efface {
namespace {

std::string figure(const nlohmann::json& summary, const std::string& name, const char* key) {
  if (summary.is_null() || !summary["scores"].contains(name) || !summary["scores"][name].contains(key))
    return "-";
  const double value = summary["scores"][name][key];
  std::ostringstream out;
  if (std::string(key) == "geometric_mean" && value < 0.01)
    out << std::scientific << std::setprecision(1) << value;
  else
    out << std::fixed << std::setprecision(2) << value;
  return out.str();
}

std::string pair(const nlohmann::json& before, const nlohmann::json& after, const std::string& name,
                 const char* key) {
  const std::string was = figure(before, name, key), is = figure(after, name, key);
  return was == "-" && is == "-" ? "-" : was + " -> " + is;
}

/// How much less likely the answers to the forget questions became, one line a form.
std::string forgetting_lines(const nlohmann::json& after, int width) {
  std::ostringstream out;
  const auto forms = after.value("forgetting", nlohmann::json::object());
  for (const auto& [name, ratio] : forms.items()) {
    const bool bare = name == "forget/bare";
    out << std::left << std::setw(width) << name << "p(answer) down " << number_text(ratio["geometric"])
        << "x, median over facts " << number_text(ratio["median"]) << "x, "
        << number_text(100 * ratio[bare ? "share_down_10x" : "share_down_100x"].get<double>())
        << "% of them down " << (bare ? "10x" : "100x") << "\n";
  }
  return out.str();
}

}  // namespace

std::string before_after_table(const nlohmann::json& before, const nlohmann::json& after) {
  if (after.is_null()) return "";
  size_t longest = std::string("before -> after").size();
  for (const auto& [name, scores] : after["scores"].items()) longest = std::max(longest, name.size());
  const int width = static_cast<int>(longest) + 2;
  std::ostringstream out;
  const auto row = [&](const std::string& name, const std::string& p, const std::string& right,
                       const std::string& refused, const std::string& safe) {
    out << std::left << std::setw(width) << name << std::setw(22) << p << std::setw(18) << right
        << std::setw(18) << refused << safe << "\n";
  };
  row("before -> after", "p(answer)", "first word right", "refused", "safe answer");
  for (const auto& [name, scores] : after["scores"].items())
    row(name, pair(before, after, name, "geometric_mean"), pair(before, after, name, "argmax_share"),
        pair(before, after, name, "refusal_share"), pair(before, after, name, "safe_share"));
  if (after["perplexity"].get<double>() > 0)
    row("perplexity",
        (before.is_null() ? "-" : number_text(before["perplexity"])) + " -> " +
            number_text(after["perplexity"]),
        "", "", "");
  out << forgetting_lines(after, width);
  return out.str();
}

}  // namespace efface
