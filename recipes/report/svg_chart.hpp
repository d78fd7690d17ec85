// Charts as inline SVG: no script, no file beside the page. Colours are CSS variables of the page's style.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace efface {

struct ChartSeries {
  std::string name;
  std::vector<double> x, y;  ///< the same size; points that are not finite break the line
};

struct ChartOptions {
  std::string title = {}, x_label = {}, y_label = {};
  bool log_y = false;               ///< values <= 0 are left out
  bool bars = false;                ///< one series, a bar a value, x as categories
  std::optional<double> y_minimum = {};  ///< default: the data's
  std::optional<double> y_maximum = {};
  /// A shaded range of x, for instance the chosen layers, with its label.
  std::optional<std::pair<double, double>> band = {};
  std::string band_label = {};
  int width = 520, height = 260;
};

/// One <figure> with its title, a legend where there are two or more series, and every point's value as a
/// tooltip. At most 8 series.
std::string svg_chart(const std::vector<ChartSeries>& series, const ChartOptions& options);

/// &, <, >, " and ' written as entities.
std::string escape_html(const std::string& text);

/// A number as a person reads it: 3 significant digits, 1.2e-05 when small, 12,345 when large.
std::string readable_number(double value);

}  // namespace efface
