#include "core/evaluate/kolmogorov_smirnov.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr long kExactUpTo = 10000;

/// Greatest distance of the distribution functions, in units of 1 / lcm(n1, n2). Both samples sorted.
long greatest_distance(const std::vector<double>& first, const std::vector<double>& second) {
  const auto n1 = static_cast<long>(first.size()), n2 = static_cast<long>(second.size());
  const long common = std::gcd(n1, n2);
  long i = 0, j = 0, greatest = 0;
  while (i < n1 && j < n2) {
    const double value = std::min(first[i], second[j]);
    while (i < n1 && first[i] == value) ++i;
    while (j < n2 && second[j] == value) ++j;
    greatest = std::max(greatest, std::labs(i * (n2 / common) - j * (n1 / common)));
  }
  return greatest;
}

}  // namespace

double kolmogorov_smirnov_exact(long n1, long n2, long steps) {
  if (steps <= 0) return 1;
  const long common = std::gcd(n1, n2), up = n2 / common, right = n1 / common;
  // touched[j]: share of the lattice paths from (0, 0) to (i, j) that come to the distance or beyond.
  std::vector<double> touched(n2 + 1, 0.0);
  for (long i = 0; i <= n1; ++i) {
    for (long j = 0; j <= n2; ++j) {
      if (std::labs(i * up - j * right) >= steps) {
        touched[j] = 1;
      } else if (i + j > 0) {
        const double from_left = i > 0 ? touched[j] * static_cast<double>(i) : 0;
        const double from_below = j > 0 ? touched[j - 1] * static_cast<double>(j) : 0;
        touched[j] = (from_left + from_below) / static_cast<double>(i + j);
      }
    }
  }
  return touched[n2];
}

double kolmogorov_smirnov_asymptotic(long n1, long n2, double statistic) {
  const double n = static_cast<double>(n1) * static_cast<double>(n2) / static_cast<double>(n1 + n2);
  const double x = std::sqrt(n) * statistic;
  if (x < 0.2) return 1;  // 1 - p is below 1e-12 there, and the series converges slowly
  double sum = 0;
  for (int k = 1; k <= 100; ++k) sum += (k % 2 ? 2 : -2) * std::exp(-2.0 * k * k * x * x);
  return std::clamp(sum, 0.0, 1.0);
}

KolmogorovSmirnov kolmogorov_smirnov(std::vector<double> first, std::vector<double> second) {
  if (first.empty() || second.empty())
    throw Error(ErrorClass::numeric, "Kolmogorov-Smirnov test: a sample is empty");
  for (const auto* sample : {&first, &second})
    if (std::any_of(sample->begin(), sample->end(), [](double x) { return std::isnan(x); }))
      throw Error(ErrorClass::numeric, "Kolmogorov-Smirnov test: a value is not a number");
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  const auto n1 = static_cast<long>(first.size()), n2 = static_cast<long>(second.size());
  const long steps = greatest_distance(first, second);
  KolmogorovSmirnov result;
  result.statistic = static_cast<double>(steps) / static_cast<double>(std::lcm(n1, n2));
  result.p_value = std::max(n1, n2) <= kExactUpTo ? kolmogorov_smirnov_exact(n1, n2, steps)
                                                  : kolmogorov_smirnov_asymptotic(n1, n2, result.statistic);
  return result;
}

}  // namespace efface
