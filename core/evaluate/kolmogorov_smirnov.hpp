// The two-sided two-sample Kolmogorov-Smirnov test.
#pragma once

#include <vector>

namespace efface {

struct KolmogorovSmirnov {
  double statistic = 0;  ///< greatest distance between the two empirical distribution functions
  double p_value = 1;    ///< exact for samples of at most 10,000, asymptotic above
};

/// Throws Error(numeric) for an empty sample or a value that is not a number.
KolmogorovSmirnov kolmogorov_smirnov(std::vector<double> first, std::vector<double> second);

/// P(D >= steps / lcm(n1, n2)) under the null, by counting lattice paths: exact at any size, also where it is
/// far below 1e-16, since only positive numbers are added.
double kolmogorov_smirnov_exact(long n1, long n2, long steps);
/// Kolmogorov's limit at sqrt(n1 n2 / (n1 + n2)) D.
double kolmogorov_smirnov_asymptotic(long n1, long n2, double statistic);

}  // namespace efface
