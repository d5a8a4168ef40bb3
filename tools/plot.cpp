#include "plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace {

const double panel_width = 460, panel_height = 340, head = 44;  // one chart; the common title above
const double left = 80, right = 16, top = 34, bottom = 52;      // around the axes of a chart
const char* const colours[] = {"#2563eb", "#ea580c", "#16a34a",
                               "#9333ea"};  // readable on white, and in print

struct Axis {
  double low = 0, high = 1, step = 1;
};

// Ends and step of 1, 2 or 5 times a power of ten, with about `wanted` ticks.
Axis round_axis(double low, double high, double wanted, bool whole) {
  if (high - low < 1e-12 * std::max(1.0, std::fabs(high)))
    high = low + (whole ? 1 : std::max(1e-6, std::fabs(low) * 0.1));
  const double rough = (high - low) / wanted, power = std::pow(10.0, std::floor(std::log10(rough)));
  Axis axis;
  axis.step = 10 * power;
  for (double m : {5.0, 2.0, 1.0})
    if (m * power >= rough) axis.step = m * power;
  if (whole) axis.step = std::max(1.0, axis.step);
  axis.low = std::floor(low / axis.step + 1e-9) * axis.step;
  axis.high = std::ceil(high / axis.step - 1e-9) * axis.step;
  return axis;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out;
}

std::string text_at(double x, double y, const char* anchor, const char* style, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", x, y, anchor, style,
                     escaped(text));
}

struct Frame {
  double x0, y0, x1, y1;  // the axes' corners: left, top, right, bottom
  Axis x, y;
  double px(double v) const { return x0 + (v - x.low) / (x.high - x.low) * (x1 - x0); }
  double py(double v) const { return y1 - (v - y.low) / (y.high - y.low) * (y1 - y0); }
};

Frame frame_of(const Chart& chart, double offset) {
  double x_low = 1e300, x_high = -1e300, y_low = 1e300, y_high = -1e300;
  for (const Curve& c : chart.curves)
    for (std::size_t i = 0; i < c.x.size(); ++i) {
      x_low = std::min(x_low, c.x[i]);
      x_high = std::max(x_high, c.x[i]);
      y_low = std::min(y_low, c.y[i]);
      y_high = std::max(y_high, c.y[i]);
    }
  if (x_low > x_high) x_low = y_low = 0, x_high = y_high = 1;
  Frame f = {offset + left, head + top, offset + panel_width - right, head + panel_height - bottom, {}, {}};
  f.x = round_axis(x_low, x_high, 8, true);
  f.y = round_axis(y_low, y_high, 5, false);
  f.x.low = x_low;  // the first epoch stands on the axis
  f.x.high = std::max(x_high, x_low + 1);
  if (chart.percent) f.y.high = std::min(f.y.high, 1.0), f.y.low = std::max(f.y.low, 0.0);
  return f;
}

std::string draw_axes(const Chart& chart, const Frame& f) {
  const char* const small = "font-size=\"11\" fill=\"#4b5563\"";
  std::string out;
  for (double v = f.y.low; v <= f.y.high + f.y.step * 0.01; v += f.y.step) {
    const double shown = std::fabs(v) < f.y.step * 1e-6 ? 0 : v;
    out += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#e5e7eb\"/>\n",
                       f.x0, f.py(v), f.x1, f.py(v));
    out += text_at(f.x0 - 8, f.py(v) + 4, "end", small,
                   chart.percent ? fmt::format("{:.6g} %", 100 * shown) : fmt::format("{:.4g}", shown));
  }
  for (double v = std::ceil(f.x.low / f.x.step - 1e-9) * f.x.step; v <= f.x.high + f.x.step * 0.01;
       v += f.x.step) {
    out += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#9ca3af\"/>\n",
                       f.px(v), f.y1, f.px(v), f.y1 + 5);
    out += text_at(f.px(v), f.y1 + 19, "middle", small, fmt::format("{:.6g}", v));
  }
  out += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" fill=\"none\" stroke=\"#9ca3af\"/>\n", f.x0,
                     f.y0, f.y1, f.x1);
  const double middle = (f.y0 + f.y1) / 2, edge = f.x0 - left + 14;
  out += text_at((f.x0 + f.x1) / 2, f.y1 + 40, "middle", "font-size=\"12\" fill=\"#374151\"", chart.x_label);
  out += fmt::format(
      "<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\" font-size=\"12\" "
      "fill=\"#374151\">{}</text>\n",
      edge, middle, escaped(chart.y_label));
  out +=
      text_at(f.x0, f.y0 - 14, "start", "font-size=\"14\" font-weight=\"600\" fill=\"#111827\"", chart.title);
  return out;
}

std::string draw_curve(const Curve& curve, const Frame& f, const char* colour) {
  std::string points, dots;
  for (std::size_t i = 0; i < curve.x.size(); ++i) {
    points += fmt::format("{}{:.1f},{:.1f}", i ? " " : "", f.px(curve.x[i]), f.py(curve.y[i]));
    if (curve.x.size() <= 40)
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" fill=\"{}\"/>\n", f.px(curve.x[i]),
                          f.py(curve.y[i]), colour);
  }
  return fmt::format(
             "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" "
             "stroke-linejoin=\"round\"/>\n",
             points, colour) +
         dots;
}

// Names beside a piece of their line, at the top right of the axes.
std::string draw_legend(const Chart& chart, const Frame& f) {
  std::string out;
  double x = f.x1;
  for (std::size_t i = chart.curves.size(); i-- > 0;) {
    if (chart.curves[i].x.empty()) continue;
    x -= 7.0 * static_cast<double>(chart.curves[i].name.size());
    out += text_at(x, f.y0 - 14, "start", "font-size=\"12\" fill=\"#374151\"", chart.curves[i].name);
    out += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"3\"/>\n",
        x - 24, f.y0 - 18, x - 6, f.y0 - 18, colours[i % 4]);
    x -= 38;
  }
  return out;
}

}  // namespace

std::string draw_charts(const std::string& title, const std::vector<Chart>& charts) {
  const double width = panel_width * static_cast<double>(charts.size()), height = head + panel_height;
  std::string out(plot_kind.mark);
  out += fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
      "{1:.0f}\" "
      "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
      width, height);
  out += text_at(width / 2, 28, "middle", "font-size=\"17\" font-weight=\"600\" fill=\"#111827\"", title);
  for (std::size_t i = 0; i < charts.size(); ++i) {
    const Frame f = frame_of(charts[i], panel_width * static_cast<double>(i));
    out += draw_axes(charts[i], f);
    for (std::size_t k = 0; k < charts[i].curves.size(); ++k)
      if (!charts[i].curves[k].x.empty()) out += draw_curve(charts[i].curves[k], f, colours[k % 4]);
    out += draw_legend(charts[i], f);
  }
  return out + "</svg>\n";
}
