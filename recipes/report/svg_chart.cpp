#include "recipes/report/svg_chart.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace efface {
namespace {

constexpr int kLeft = 58, kRight = 14, kTop = 10, kBottom = 40;

std::string format(const char* pattern, double a) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, a);
  return text;
}

/// Round steps of 1, 2 or 5 times a power of ten, about `wanted` of them.
std::vector<double> ticks(double low, double high, int wanted) {
  if (!(high > low)) return {low};
  const double raw = (high - low) / wanted, power = std::pow(10.0, std::floor(std::log10(raw)));
  const double step = power * (raw / power < 1.5 ? 1 : raw / power < 3.5 ? 2 : raw / power < 7.5 ? 5 : 10);
  std::vector<double> result;
  for (double t = std::ceil(low / step) * step; t <= high + step * 1e-9; t += step)
    result.push_back(std::abs(t) < step * 1e-9 ? 0 : t);
  return result;
}

/// Maps data to pixels; y on a logarithmic scale when asked.
struct Scale {
  double x_low, x_high, y_low, y_high;
  bool log_y;
  int width, height;

  double x(double value) const {
    return kLeft + (value - x_low) / std::max(1e-300, x_high - x_low) * (width - kLeft - kRight);
  }
  double y(double value) const {
    const double v = log_y ? std::log10(value) : value;
    return height - kBottom - (v - y_low) / std::max(1e-300, y_high - y_low) * (height - kTop - kBottom);
  }
};

bool drawable(double x, double y, bool log_y) {
  return std::isfinite(x) && std::isfinite(y) && (!log_y || y > 0);
}

Scale make_scale(const std::vector<ChartSeries>& series, const ChartOptions& options) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Scale scale{infinity, -infinity, infinity, -infinity, options.log_y, options.width, options.height};
  for (const auto& one : series) {
    for (size_t i = 0; i < one.x.size(); ++i) {
      if (!drawable(one.x[i], one.y[i], options.log_y)) continue;
      const double y = options.log_y ? std::log10(one.y[i]) : one.y[i];
      scale.x_low = std::min(scale.x_low, one.x[i]);
      scale.x_high = std::max(scale.x_high, one.x[i]);
      scale.y_low = std::min(scale.y_low, y);
      scale.y_high = std::max(scale.y_high, y);
    }
  }
  if (!(scale.x_low <= scale.x_high)) scale.x_low = 0, scale.x_high = 1, scale.y_low = 0, scale.y_high = 1;
  if (options.bars) {
    scale.x_low -= 0.6, scale.x_high += 0.6;
    scale.y_low = std::min(scale.y_low, 0.0), scale.y_high = std::max(scale.y_high, 0.0);
  }
  if (options.y_minimum) scale.y_low = options.log_y ? std::log10(*options.y_minimum) : *options.y_minimum;
  if (options.y_maximum) scale.y_high = options.log_y ? std::log10(*options.y_maximum) : *options.y_maximum;
  if (scale.y_high <= scale.y_low)
    scale.y_high = scale.y_low + (scale.y_low == 0 ? 1 : std::abs(scale.y_low) * 0.1);
  if (scale.x_high <= scale.x_low) scale.x_high = scale.x_low + 1;
  if (!options.bars) {
    const double margin = (scale.y_high - scale.y_low) * 0.04;
    if (!options.y_minimum) scale.y_low -= margin;
    if (!options.y_maximum) scale.y_high += margin;
  }
  return scale;
}

std::string text_at(double x, double y, const std::string& anchor, const std::string& style,
                    const std::string& text) {
  return "<text x=\"" + format("%.1f", x) + "\" y=\"" + format("%.1f", y) + "\" text-anchor=\"" + anchor +
         "\" class=\"" + style + "\">" + escape_html(text) + "</text>";
}

std::string axes(const Scale& scale, const ChartOptions& options) {
  std::string svg;
  const double bottom = scale.height - kBottom, right = scale.width - kRight;
  if (options.band) {
    const double begin = scale.x(options.band->first), end = scale.x(options.band->second);
    svg += "<rect class=\"band\" x=\"" + format("%.1f", begin) + "\" y=\"" + std::to_string(kTop) +
           "\" width=\"" + format("%.1f", end - begin) + "\" height=\"" + format("%.1f", bottom - kTop) +
           "\"/>";
    svg += text_at((begin + end) / 2, kTop + 12, "middle", "tick", options.band_label);
  }
  // Whole decades where there are some to choose from.
  const bool decades = options.log_y && std::floor(scale.y_high) - std::ceil(scale.y_low) >= 1;
  const auto y_ticks =
      decades ? ticks(std::ceil(scale.y_low), std::floor(scale.y_high),
                      static_cast<int>(std::min(5.0, std::floor(scale.y_high) - std::ceil(scale.y_low))))
              : ticks(scale.y_low, scale.y_high, 5);
  for (const double t : y_ticks) {
    const double y = scale.y(options.log_y ? std::pow(10.0, t) : t);
    svg += "<line class=\"grid\" x1=\"" + std::to_string(kLeft) + "\" x2=\"" + format("%.1f", right) +
           "\" y1=\"" + format("%.1f", y) + "\" y2=\"" + format("%.1f", y) + "\"/>";
    svg += text_at(kLeft - 6, y + 4, "end", "tick", readable_number(options.log_y ? std::pow(10.0, t) : t));
  }
  for (const double t : ticks(scale.x_low, scale.x_high, 8))
    svg += text_at(scale.x(t), bottom + 16, "middle", "tick", format("%.4g", t));
  svg += "<line class=\"axis\" x1=\"" + std::to_string(kLeft) + "\" x2=\"" + format("%.1f", right) +
         "\" y1=\"" + format("%.1f", bottom) + "\" y2=\"" + format("%.1f", bottom) + "\"/>";
  svg += text_at((kLeft + right) / 2, scale.height - 6, "middle", "label", options.x_label);
  const double middle = (kTop + bottom) / 2;
  svg += "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(12 " + format("%.1f", middle) +
         ") rotate(-90)\">" + escape_html(options.y_label) + "</text>";
  return svg;
}

std::string tooltip(const ChartSeries& series, size_t i, const ChartOptions& options) {
  const std::string who = series.name.empty() ? "" : series.name + ": ";
  return "<title>" +
         escape_html(who + options.x_label + " " + readable_number(series.x[i]) + ", " +
                     readable_number(series.y[i])) +
         "</title>";
}

std::string bar_marks(const ChartSeries& series, const Scale& scale, const ChartOptions& options) {
  std::string svg;
  const double slot = scale.x(1) - scale.x(0), bar = std::clamp(slot * 0.72, 1.0, 24.0);
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!drawable(series.x[i], series.y[i], options.log_y)) continue;
    const double zero = scale.y(0), top = scale.y(series.y[i]);
    svg += "<rect class=\"fill0\" rx=\"1.5\" x=\"" + format("%.1f", scale.x(series.x[i]) - bar / 2) +
           "\" y=\"" + format("%.1f", std::min(zero, top)) + "\" width=\"" + format("%.1f", bar) +
           "\" height=\"" + format("%.1f", std::max(0.5, std::abs(zero - top))) + "\">" +
           tooltip(series, i, options) + "</rect>";
  }
  return svg;
}

std::string line_marks(const ChartSeries& series, size_t index, const Scale& scale,
                       const ChartOptions& options) {
  std::string path, points;
  bool pen_down = false;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!drawable(series.x[i], series.y[i], options.log_y)) {
      pen_down = false;
      continue;
    }
    const std::string at = format("%.1f", scale.x(series.x[i])) + " " + format("%.1f", scale.y(series.y[i]));
    path += (pen_down ? "L" : "M") + at;
    pen_down = true;
    points += "<circle class=\"hit\" r=\"5\" cx=\"" + format("%.1f", scale.x(series.x[i])) + "\" cy=\"" +
              format("%.1f", scale.y(series.y[i])) + "\">" + tooltip(series, i, options) + "</circle>";
  }
  return "<path class=\"line" + std::to_string(index) + "\" d=\"" + path + "\"/>" + points;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string readable_number(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "n/a" : value > 0 ? "inf" : "-inf";
  const double size = std::abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-3)) return format("%.2e", value);
  if (size >= 1000) {
    std::string digits = format("%.0f", size), result;
    for (size_t i = 0; i < digits.size(); ++i) {
      if (i > 0 && (digits.size() - i) % 3 == 0) result += ',';
      result += digits[i];
    }
    return (value < 0 ? "-" : "") + result;
  }
  return format("%.3g", value);
}

std::string svg_chart(const std::vector<ChartSeries>& all, const ChartOptions& options) {
  const std::vector<ChartSeries> series(all.begin(), all.begin() + std::min<size_t>(all.size(), 8));
  const Scale scale = make_scale(series, options);
  std::string html = "<figure><figcaption>" + escape_html(options.title) + "</figcaption>";
  if (series.size() > 1) {
    html += "<div class=\"legend\">";
    for (size_t i = 0; i < series.size(); ++i)
      html +=
          "<span><i class=\"key" + std::to_string(i) + "\"></i>" + escape_html(series[i].name) + "</span>";
    html += "</div>";
  }
  html += "<svg viewBox=\"0 0 " + std::to_string(options.width) + " " + std::to_string(options.height) +
          "\" role=\"img\" aria-label=\"" + escape_html(options.title) + "\">" + axes(scale, options);
  for (size_t i = 0; i < series.size(); ++i)
    html += options.bars ? bar_marks(series[i], scale, options) : line_marks(series[i], i, scale, options);
  return html + "</svg></figure>";
}

}  // namespace efface
