#include "recipes/report/report.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"
#include "recipes/report/page.hpp"
#include "recipes/report/svg_chart.hpp"

namespace efface {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Json read_json(const fs::path& file) {
  if (!fs::exists(file)) return nullptr;
  try {
    return Json::parse(read_text_file(file));
  } catch (const Json::exception& error) {
    throw Error(ErrorClass::storage, file.string() + ": not JSON: " + error.what(), "run the stage again");
  }
}

/// A stage's summary, or null when the run does not want it: what lies in its folder is then of another run.
Json summary_of(const fs::path& run, const Json& manifest, const std::string& stage) {
  const Json& wanted = manifest.at("stages");
  if (std::find(wanted.begin(), wanted.end(), stage) == wanted.end()) return nullptr;
  const Json done = read_json(run / stage / "done.json");
  return done.is_object() && done.contains("summary") ? done["summary"] : Json();
}

double number(const Json& object, const std::string& key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_number()) return std::nan("");
  return object[key].get<double>();
}

double score(const Json& summary, const std::string& form, const std::string& figure) {
  if (!summary.is_object() || !summary.contains("scores") || !summary["scores"].contains(form))
    return std::nan("");
  return number(summary["scores"][form], figure);
}

std::string tile(const std::string& value, const std::string& what) {
  return "<div class=\"tile\"><b>" + escape_html(value) + "</b><span>" + escape_html(what) + "</span></div>";
}

std::string percent(double share) {
  return std::isfinite(share) ? readable_number(100 * share) + "%" : "n/a";
}

/// Of the questions whose first token was right before, the share that are right after; NaN when none was.
double kept_share(const Json& before, const Json& after, const std::string& form) {
  const auto right = [&](const Json& summary) {
    return summary.is_object()
               ? summary["scores"].value(form, Json::object()).value("first_is_argmax", Json::array())
               : Json::array();
  };
  const Json was = right(before), is = right(after);
  double right_before = 0, right_still = 0;
  for (size_t i = 0; i < std::min(was.size(), is.size()); ++i) {
    right_before += was[i].get<bool>();
    right_still += was[i].get<bool>() && is[i].get<bool>();
  }
  return right_before > 0 ? right_still / right_before : std::nan("");
}

/// The few figures that say whether it worked.
std::string headline(const Json& before, const Json& after, const Json& unlearn) {
  if (after.is_null()) return "";
  std::string tiles;
  const Json forgetting = after.value("forgetting", Json::object());
  for (const auto& [form, label] :
       std::map<std::string, std::string>{{"forget/trained", "after a question"},
                                          {"forget/reworded", "after a never-trained wording"},
                                          {"forget/bare", "on the bare prompt"}})
    if (forgetting.contains(form)) {
      const bool bare = form == "forget/bare";
      const Json& ratio = forgetting[form];
      tiles += tile(readable_number(number(ratio, "geometric")) + "×",
                    "less likely forgotten answer " + label + "; median over facts " +
                        readable_number(number(ratio, "median")) + "×, " +
                        percent(number(ratio, bare ? "share_down_10x" : "share_down_100x")) +
                        " of them down " + (bare ? "10×" : "100×"));
    }
  const bool taught =
      unlearn.is_object() && unlearn.value("rows_per_step", Json::object()).value("safe", 0) > 0;
  if (const double safe = score(after, "forget/reworded", "safe_share"); taught && std::isfinite(safe))
    tiles += tile(percent(safe), "of never-trained wordings get exactly the safe response");
  for (const auto& [group, label] : std::map<std::string, std::string>{
           {"unseen", "unseen facts"}, {"neighbours_heldout", "held-out neighbours"}})
    if (const double kept = kept_share(before, after, group + "/trained"); std::isfinite(kept))
      tiles += tile(percent(kept), "of the " + label + " that were right before are right after");
  if (const double refused = score(after, "unrelated/trained", "refusal_share"); std::isfinite(refused))
    tiles += tile(percent(refused), "of unrelated questions are refused");
  const double was = number(before, "perplexity"), is = number(after, "perplexity");
  if (was > 0 && is > 0)
    tiles += tile((is >= was ? "+" : "") + readable_number(100 * (is / was - 1)) + "%",
                  "perplexity of held-out text");
  return "<div class=\"tiles\">" + tiles + "</div>";
}

std::string change(double before, double after, bool shares) {
  const auto text = [&](double value) {
    return std::isfinite(value) ? (shares ? percent(value) : readable_number(value)) : "–";
  };
  if (!std::isfinite(before) && !std::isfinite(after)) return "–";
  return text(before) + " → " + text(after);
}

std::string before_after_section(const Json& before, const Json& after) {
  if (after.is_null()) return "";
  std::vector<std::vector<TableCell>> rows;
  for (const auto& [form, scores] : after["scores"].items()) {
    const auto both = [&](const char* figure, bool shares) {
      return TableCell{change(score(before, form, figure), score(after, form, figure), shares), ""};
    };
    rows.push_back({{form, ""},
                    {readable_number(number(scores, "questions")), ""},
                    both("geometric_mean", false),
                    both("arithmetic_mean", false),
                    both("argmax_share", true),
                    both("refusal_share", true),
                    both("safe_share", true)});
  }
  return html_section("Before and after",
                      "p is the probability of the whole answer (geometric mean, floored at 1e-8, and "
                      "arithmetic mean). A refusal is not "
                      "forgetting: forget facts are asked after the trained question, after wordings never "
                      "trained on, and as a bare prompt. "
                      "Refusals on any other group are over-refusal.",
                      html_table({"questions", "n", "p, geometric", "p, arithmetic", "first token right",
                                  "refused", "safe response exact"},
                                 rows));
}

/// What was said, or that nothing was: an empty cell would look like a missing answer.
std::string said(const std::string& answer) {
  const bool blank = answer.find_first_not_of(" \t\r\n") == std::string::npos;
  return blank ? "(says nothing)" : answer;
}

std::string samples_section(const Json& before, const Json& after) {
  if (after.is_null() || !after.contains("samples")) return "";
  std::vector<std::vector<TableCell>> rows;
  for (const auto& [group, samples] : after["samples"].items()) {
    for (size_t i = 0; i < samples.size(); ++i) {
      std::string was = "–";
      if (before.is_object() && before.contains("samples") && before["samples"].contains(group) &&
          i < before["samples"][group].size())
        was = said(before["samples"][group][i].value("answer", ""));
      rows.push_back({{group, ""},
                      {samples[i].value("question", ""), "text"},
                      {was, "text"},
                      {said(samples[i].value("answer", "")), "text"}});
    }
  }
  if (rows.empty()) return "";
  return html_section("Sample answers", "Greedy, cut where the sample ends.",
                      html_table({"group", "question", "before", "after"}, rows));
}

std::string training_section(const Json& unlearn) {
  if (unlearn.is_null() || !unlearn.contains("steps") || unlearn["steps"].empty()) return "";
  std::map<std::string, ChartSeries> parts;
  ChartSeries loss{"loss", {}, {}}, norm{"", {}, {}};
  double tokens = 0, seconds = 0;
  for (const auto& step : unlearn["steps"]) {
    const double at = number(step, "step");
    loss.x.push_back(at), loss.y.push_back(number(step, "loss"));
    norm.x.push_back(at), norm.y.push_back(number(step, "grad_norm"));
    tokens += number(step, "tokens"), seconds += number(step, "seconds");
    const Json named = step.value("parts", Json::object());
    for (const auto& [name, value] : named.items()) {
      auto& series = parts[name];
      series.name = name;
      series.x.push_back(at), series.y.push_back(value.get<double>());
    }
  }
  std::vector<ChartSeries> all;
  for (auto& [name, series] : parts) all.push_back(std::move(series));
  std::string charts = svg_chart({loss}, {.title = "Loss", .x_label = "step", .y_label = "loss"});
  if (!all.empty())
    charts += svg_chart(all, {.title = "Its parts, unweighted", .x_label = "step", .y_label = "value"});
  charts +=
      svg_chart({norm}, {.title = "Gradient norm", .x_label = "step", .y_label = "norm", .log_y = true});
  return html_section("Training",
                      unlearn.value("method", "") + ", " + std::to_string(unlearn["steps"].size()) +
                          " steps, " + readable_number(tokens) + " tokens, " + readable_number(seconds) +
                          " s",
                      "<div class=\"charts\">" + charts + "</div>");
}

/// "12.gate_up" -> (12, "gate_up")
std::pair<double, std::string> layer_and_input(const std::string& name) {
  const auto dot = name.find('.');
  return {std::stod(name.substr(0, dot)), name.substr(dot + 1)};
}

/// How far each input's covariance and basis can be trusted.
std::string subspace_table(const Json& inputs) {
  std::vector<std::vector<TableCell>> rows;
  for (const auto& input : inputs) {
    const auto figure = [&](const char* name) { return TableCell{readable_number(number(input, name)), ""}; };
    const auto share = [&](const char* name) { return TableCell{percent(number(input, name)), ""}; };
    std::string warnings;
    for (const auto& warning : input.value("warnings", std::vector<std::string>()))
      warnings += (warnings.empty() ? "" : "; ") + warning;
    rows.push_back({{input.value("input", ""), ""},
                    figure("k"),
                    figure("n"),
                    figure("tokens_per_dimension"),
                    share("energy"),
                    share("heldout_residual"),
                    share("lambda_1_share"),
                    share("top_token_share"),
                    {warnings, "text"}});
  }
  return "<details><summary>Every module's input</summary>" +
         html_table({"input", "k", "n", "tokens per dimension", "energy kept", "held-out energy outside",
                     "λ₁ share", "top token share", "warnings"},
                    rows) +
         "</details>";
}

std::string subspace_section(const Json& nullspace) {
  if (nullspace.is_null() || !nullspace.contains("inputs")) return "";
  std::map<std::string, ChartSeries> rank, residual;
  std::map<std::string, std::vector<ChartSeries>> spectra;
  std::string warnings;
  const Json& inputs = nullspace["inputs"];
  for (const auto& input : inputs) {
    const auto [layer, kind] = layer_and_input(input.value("input", "0.?"));
    rank[kind].name = residual[kind].name = kind;
    rank[kind].x.push_back(layer), rank[kind].y.push_back(number(input, "k") / number(input, "n"));
    residual[kind].x.push_back(layer), residual[kind].y.push_back(number(input, "heldout_residual"));
    ChartSeries spectrum{"layer " + readable_number(layer), {}, {}};
    const Json points = input.value("spectrum", Json::array());
    for (const auto& point : points) {
      spectrum.x.push_back(point[0].get<double>() / number(input, "n"));
      spectrum.y.push_back(point[1].get<double>() / number(input, "trace"));
    }
    if (!points.empty()) spectra[kind].push_back(std::move(spectrum));
    const Json said = input.value("warnings", Json::array());
    for (const auto& warning : said)
      warnings +=
          "<li>" + escape_html(input.value("input", "") + ": " + warning.get<std::string>()) + "</li>";
  }
  const auto values = [](const std::map<std::string, ChartSeries>& series) {
    std::vector<ChartSeries> all;
    for (const auto& [kind, one] : series) all.push_back(one);
    return all;
  };
  std::string charts = svg_chart(values(rank), {.title = "Share of the input directions that are kept, k / n",
                                                .x_label = "layer",
                                                .y_label = "k / n",
                                                .y_minimum = 0,
                                                .y_maximum = 1});
  charts += svg_chart(values(residual), {.title = "Energy of held-out tokens outside the kept subspace",
                                         .x_label = "layer",
                                         .y_label = "share",
                                         .y_minimum = 0});
  for (const auto& [kind, all] : spectra) {
    std::vector<ChartSeries> some;  // first, middle and last layers speak for the rest
    for (const size_t i : {size_t{0}, all.size() / 4, all.size() / 2, all.size() * 3 / 4, all.size() - 1})
      if (i < all.size() && (some.empty() || some.back().name != all[i].name)) some.push_back(all[i]);
    charts += svg_chart(some, {.title = "Spectrum, " + kind,
                               .x_label = "index / n",
                               .y_label = "eigenvalue / trace",
                               .log_y = true});
  }
  std::string body = "<div class=\"charts\">" + charts + "</div>" + subspace_table(inputs);
  if (!warnings.empty())
    body += "<details open><summary>Where a subspace is not to be trusted</summary><ul class=\"warnings\">" +
            warnings + "</ul></details>";
  return html_section("The retain subspace",
                      "What the kept knowledge uses of each linear layer's input. A projected update writes "
                      "into the rest only.",
                      body);
}

std::string trace_section(const Json& trace) {
  if (trace.is_null() || !trace.contains("effect")) return "";
  ChartSeries effect{"", {}, trace["effect"].get<std::vector<double>>()};
  for (size_t i = 0; i < effect.y.size(); ++i) effect.x.push_back(static_cast<double>(i));
  ChartOptions options{.title = "Indirect effect of restoring the feed-forward outputs around a layer",
                       .x_label = "layer",
                       .y_label = "probability regained",
                       .bars = true,
                       .width = 900};
  const auto window = trace["window"].get<std::vector<double>>(),
             free = trace["unrestricted_window"].get<std::vector<double>>();
  options.band = std::pair{window[0] - 0.5, window[1] - 0.5};
  options.band_label = "trained";
  std::string said = std::to_string(trace.value("facts_used", 0)) + " facts, " +
                     std::to_string(trace.value("facts_unknown", 0)) +
                     " left out because the model does not know them; p of the answer " +
                     readable_number(number(trace, "clean_probability")) + ", with the subject corrupted " +
                     readable_number(number(trace, "corrupted_probability")) + ".";
  if (window != free)
    said += " Without excluded layers the choice would be layers " + readable_number(free[0]) + " to " +
            readable_number(free[1] - 1) + ".";
  return html_section("Where the facts are: causal trace", said, svg_chart({effect}, options));
}

std::string constraint_section(const Json& constraint, bool projected) {
  if (constraint.is_null() || constraint["modules"].empty()) return "";
  std::vector<Json> modules = constraint["modules"].get<std::vector<Json>>();
  ChartSeries leak{"on the covariance's tokens", {}, {}}, heldout{"on held-out tokens", {}, {}},
      bound{"bound", {}, {}};
  for (size_t i = 0; i < modules.size(); ++i) {
    for (auto* series : {&leak, &heldout, &bound}) series->x.push_back(static_cast<double>(i));
    leak.y.push_back(number(modules[i], "of_update"));
    heldout.y.push_back(number(modules[i], "heldout_of_update"));
    bound.y.push_back(number(modules[i], "bound"));
  }
  const std::string chart =
      svg_chart({leak, heldout, bound}, {.title = "Leak of each module's update, ‖ΔW X‖ / (‖ΔW‖ ‖X‖)",
                                         .x_label = "module, in order",
                                         .y_label = "leak",
                                         .log_y = true,
                                         .width = 900});
  std::sort(modules.begin(), modules.end(), [](const Json& a, const Json& b) {
    return number(a, "of_update") / number(a, "bound") > number(b, "of_update") / number(b, "bound");
  });
  std::vector<std::vector<TableCell>> rows;
  for (const auto& module : modules) {
    const double of_bound = number(module, "of_update") / number(module, "bound");
    rows.push_back({{module.value("module", ""), ""},
                    {readable_number(number(module, "of_update")), ""},
                    {readable_number(number(module, "bound")), ""},
                    {readable_number(of_bound), of_bound > 1 ? "bad" : "good"},
                    {readable_number(number(module, "heldout_of_update")), ""},
                    {readable_number(number(module, "of_output")), ""},
                    {readable_number(number(module, "heldout_of_output")), ""},
                    {readable_number(number(module, "rounded_of_update")), ""},
                    {readable_number(number(module, "rounded_of_output")), ""},
                    {readable_number(number(module, "sink")), ""}});
  }
  return html_section(
      "Did it stay in the null space?",
      std::string(projected ? "A hard projection obeys the bound on the tokens its covariance "
                              "counted; on held-out tokens it need not."
                            : "This update was not projected: it owes the bound nothing.") +
          " Output "
          "change is ‖ΔW X‖ / ‖W X‖; rounded is after rounding to the exported dtype; sink is "
          "the first position.",
      chart + "<details><summary>Every module, the worst first</summary>" +
          html_table({"module", "leak", "bound", "leak / bound", "leak, held out", "output change",
                      "output change, held out", "leak, rounded", "output change, rounded", "sink"},
                     rows) +
          "</details>");
}

std::string what_was_run(const fs::path& run, const Json& manifest) {
  std::vector<std::vector<TableCell>> rows;
  for (const auto& [key, value] : manifest.items())
    if (key != "stages")
      rows.push_back({{key, ""}, {value.is_string() ? value.get<std::string>() : value.dump(), "text"}});
  std::string body = rows.empty() ? "" : html_table({"what", "value"}, rows);
  std::vector<std::vector<TableCell>> times;
  for (const auto& stage : manifest.at("stages").get<std::vector<std::string>>()) {
    const Json summary = summary_of(run, manifest, stage);
    if (!summary.is_null())
      times.push_back({{stage, ""}, {readable_number(number(summary, "seconds")) + " s", ""}});
  }
  if (!times.empty()) body += "<br>" + html_table({"stage", "time"}, times);
  if (fs::exists(run / "recipe.yaml"))
    body += "<details><summary>The recipe, every default filled in</summary><pre>" +
            escape_html(read_text_file(run / "recipe.yaml")) + "</pre></details>";
  return html_section("What was run", "", body);
}

}  // namespace

void write_report(const fs::path& run) {
  const Json manifest = read_json(run / "run.json");
  if (!manifest.is_object())
    throw Error(ErrorClass::storage, run.string() + ": not a run directory (no run.json)",
                "give the folder that `efface run` wrote");
  const auto summary = [&](const char* stage) { return summary_of(run, manifest, stage); };
  const Json before = summary("before"), after = summary("evaluate");
  const std::string body = headline(before, after, summary("unlearn")) + before_after_section(before, after) +
                           samples_section(before, after) + training_section(summary("unlearn")) +
                           constraint_section(summary("constraint"), manifest.value("projected", true)) +
                           trace_section(summary("trace")) + subspace_section(summary("nullspace")) +
                           what_was_run(run, manifest);
  const std::string subtitle = manifest.value("method", "") + " on " + manifest.value("model", "") + ", " +
                               std::to_string(manifest.value("tensor", 1)) + " tensor x " +
                               std::to_string(manifest.value("data", 1)) + " data ranks, efface " +
                               manifest.value("version", "") + ", " + manifest.value("started", "");
  write_text_file(run / "report.html", html_page("What the model forgot", subtitle, body));
}

}  // namespace efface
