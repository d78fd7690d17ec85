// How many eigenvectors are kept, and when not to believe them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "core/subspace/projector.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr double kTopShareLimit = 0.9;
constexpr int64_t kSmallestTrustedRank = 2;
constexpr double kTokensPerDimension = 20;

// Rounding leaves tiny negative eigenvalues of a positive semi-definite matrix.
std::vector<double> clamped(const at::Tensor& values) {
  const at::Tensor v = values.to(at::kCPU, at::kDouble).contiguous();
  std::vector<double> result(v.data_ptr<double>(), v.data_ptr<double>() + v.numel());
  for (double& x : result) x = std::max(x, 0.0);
  return result;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (double x : values) total += x;
  return total;
}

int64_t rank_at_energy(const std::vector<double>& values, double energy) {
  const double total = sum(values);
  double held = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    held += values[i];
    if (held >= energy * total) return static_cast<int64_t>(i) + 1;
  }
  return static_cast<int64_t>(values.size());
}

int64_t count_at_least(const std::vector<double>& values, double floor) {
  return std::count_if(values.begin(), values.end(), [floor](double x) { return x >= floor; });
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

std::string spectrum_summary(const std::vector<double>& values) {
  const size_t n = values.size();
  const double total = sum(values);
  std::string text = "spectrum of " + std::to_string(n) + " eigenvalues: largest " + number(values[0]) +
                     " (" + number(total > 0 ? 100 * values[0] / total : 0) + "% of the trace), middle " +
                     number(values[n / 2]) + ", smallest " + number(values[n - 1]) + "; k at energy";
  for (double energy : {0.9, 0.95, 0.99})
    text +=
        (energy > 0.9 ? ", " : " ") + number(energy) + ": " + std::to_string(rank_at_energy(values, energy));
  return text;
}

std::string rule_text(const RankRule& rule) {
  switch (rule.kind) {
    case RankRule::Kind::energy:
      return "energy: " + number(rule.value);
    case RankRule::Kind::threshold:
      return "threshold: " + number(rule.value);
    case RankRule::Kind::relative:
      return "relative: " + number(rule.value);
    case RankRule::Kind::heldout:
      return "heldout: " + number(rule.value);
    case RankRule::Kind::k:
      return "k: " + number(rule.value);
  }
  return "";
}

}  // namespace

void require_energy(double energy, const std::string& module) {
  if (energy > 0 && std::isfinite(energy)) return;
  throw Error(ErrorClass::numeric, module + ": the retain inputs have no energy at all",
              "check that the retain data is not empty");
}

int64_t choose_rank(const at::Tensor& values, const RankRule& rule, const std::string& module,
                    const at::Tensor& heldout_energy) {
  const std::vector<double> spectrum = clamped(values);
  require_energy(spectrum.empty() ? 0 : spectrum[0], module);
  const auto n = static_cast<int64_t>(spectrum.size());
  int64_t k = 0;
  switch (rule.kind) {
    case RankRule::Kind::energy:
      k = rank_at_energy(spectrum, rule.value);
      break;
    case RankRule::Kind::threshold:
      k = count_at_least(spectrum, rule.value);
      break;
    case RankRule::Kind::relative:
      k = count_at_least(spectrum, rule.value * spectrum[0]);
      break;
    case RankRule::Kind::heldout:
      if (!heldout_energy.defined())
        throw Error(ErrorClass::data,
                    module + ": nullspace.rank " + rule_text(rule) + " has no held-out tokens",
                    "give 'data.text.heldout', or another rule");
      k = rank_at_energy(clamped(heldout_energy), rule.value);
      break;
    case RankRule::Kind::k:
      k = static_cast<int64_t>(std::llround(rule.value));
      break;
  }
  if (k >= n)
    throw Error(ErrorClass::numeric,
                module + ": nullspace.rank " + rule_text(rule) +
                    " leaves no direction to train in (k >= n = " + std::to_string(n) + "); " +
                    spectrum_summary(spectrum),
                "lower the energy, or raise the threshold");
  if (k <= 0)
    throw Error(ErrorClass::numeric,
                module + ": nullspace.rank " + rule_text(rule) + " protects nothing (k = 0); " +
                    spectrum_summary(spectrum),
                "raise the energy, or lower the threshold");
  return k;
}

std::vector<std::string> subspace_warnings(double first_share, int64_t n, int64_t k, int64_t tokens) {
  std::vector<std::string> warnings;
  if (first_share > kTopShareLimit)
    warnings.push_back("one direction holds " + number(100 * first_share) +
                       "% of the trace: a few tokens drown all others; leave sinks out or cap norms");
  if (k <= kSmallestTrustedRank)
    warnings.push_back("only " + std::to_string(k) + " of " + std::to_string(n) +
                       " directions are protected");
  const double per_dimension = static_cast<double>(tokens) / static_cast<double>(n);
  if (per_dimension < kTokensPerDimension)
    warnings.push_back(number(per_dimension) +
                       " tokens per input dimension; below 20 the held-out energy outside " +
                       "the subspace is several times the nominal one");
  return warnings;
}

}  // namespace efface
