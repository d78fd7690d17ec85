#include "distributed/eigensolvers/tridiagonal.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "distributed/eigensolvers/checks.hpp"
#include "distributed/eigensolvers/lapack_symbols.hpp"
#include "distributed/parallel_ranges.hpp"

namespace efface {
namespace {

constexpr int64_t kLeaf = 96;   // LAPACK's dstedc solves what is this small
constexpr int64_t kGrain = 32;  // rows that are worth a thread
constexpr double kEpsilon = std::numeric_limits<double>::epsilon() / 2;

/// The eigenvectors p and q of the parts, turned so that p takes no part in the merge.
struct Rotation {
  int64_t p, q;
  double c, s;
};

/// D + rho z z^T: its eigenvectors in terms of the parts' own.
struct Secular {
  std::vector<int64_t> kept;      // the parts' eigenvectors that take part, by ascending value
  std::vector<double> poles, z;   // their values, and z scaled to unit length
  std::vector<int64_t> deflated;  // the others: eigenvectors already
  std::vector<double> deflated_values;
  std::vector<Rotation> rotations;
  double rho = 0;
};

/// LAPACK's dlaed2: what is (nearly) no part of z, and one of each pair of (nearly) equal values, is
/// deflated.
Secular deflate(std::vector<double> d, std::vector<double> z, double rho) {
  const auto n = static_cast<int64_t>(d.size());
  const auto at = [](auto& v, int64_t i) -> auto& { return v[static_cast<size_t>(i)]; };
  std::vector<int64_t> order(d.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return at(d, a) < at(d, b); });
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max({largest, std::abs(at(d, i)), std::abs(at(z, i))});
  const double tolerance = 8 * kEpsilon * largest;

  Secular result;
  const auto drop = [&](int64_t i) {
    result.deflated.push_back(i);
    result.deflated_values.push_back(at(d, i));
  };
  const auto keep = [&](int64_t i) {
    result.kept.push_back(i);
    result.poles.push_back(at(d, i));
    result.z.push_back(at(z, i));
  };
  int64_t p = -1;  // the last that is not deflated, still to be compared with the next
  for (const int64_t q : order) {
    if (rho * std::abs(at(z, q)) <= tolerance) {
      drop(q);
      continue;
    }
    if (p >= 0) {
      const double length = std::hypot(at(z, p), at(z, q));
      const double c = at(z, q) / length, s = -at(z, p) / length;
      if (std::abs((at(d, q) - at(d, p)) * c * s) <= tolerance) {
        at(z, q) = length;
        const double dp = at(d, p), dq = at(d, q);
        at(d, p) = dp * c * c + dq * s * s;
        at(d, q) = dp * s * s + dq * c * c;
        result.rotations.push_back({p, q, c, s});
        drop(p);
      } else {
        keep(p);
      }
    }
    p = q;
  }
  if (p >= 0) keep(p);

  double length = 0;
  for (double x : result.z) length += x * x;
  result.rho = rho * length;
  for (double& x : result.z) x /= std::sqrt(length);
  return result;
}

}  // namespace

/// A stretch of the matrix: solved outright, or two parts and how they merge.
struct TridiagonalEigenpairs::Part {
  std::vector<double> values;  // ascending

  at::Tensor leaf;  // [n, n] rows

  at::Tensor first, second;  // the parts' eigenvectors as rows, [n1, n1] and [n2, n2]
  Secular secular;
  at::Tensor differences;  // [K, K]: row j is poles - (eigenvalue j), to full relative accuracy
  std::vector<int64_t>
      source;  // of values[i]: < K a root of the secular equation, else K + index of a deflated

  void merge(const Part& left, const Part& right, double coupling);
  void find_roots(std::vector<double>& roots);
  at::Tensor vectors(int64_t begin, int64_t end) const;

 private:
  void coefficients(int64_t index, const std::vector<int64_t>& column, double* row) const;
};

void TridiagonalEigenpairs::Part::find_roots(std::vector<double>& roots) {
  const auto k = static_cast<int64_t>(secular.kept.size());
  roots.resize(static_cast<size_t>(k));
  differences = at::empty({k, k}, at::kDouble);
  double* delta = differences.data_ptr<double>();
  std::atomic<int> failed{0};
  parallel_ranges(k, kGrain, [&](int64_t begin, int64_t end) {
    const int size = static_cast<int>(k);
    for (int64_t j = begin; j < end; ++j) {
      const int index = static_cast<int>(j + 1);
      int info = 0;
      dlaed4_(&size, &index, secular.poles.data(), secular.z.data(), delta + j * k, &secular.rho,
              &roots[static_cast<size_t>(j)], &info);
      if (info != 0) failed = info;
    }
  });
  require_converged(failed, k, "dlaed4");
  if (k <= 2) return;  // dlaed4 gives the eigenvectors themselves
  // The z of which the roots found are the exact ones, so that the vectors are orthogonal (Gu and Eisenstat).
  parallel_ranges(k, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<double> product(static_cast<size_t>(end - begin), -1.);
    for (int64_t j = 0; j < k; ++j) {
      const double* row = delta + j * k;
      const double pole = secular.poles[static_cast<size_t>(j)];
      const auto multiply = [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i)
          product[static_cast<size_t>(i - begin)] *= row[i] / (secular.poles[static_cast<size_t>(i)] - pole);
      };
      multiply(begin, std::clamp(j, begin, end));
      multiply(std::clamp(j + 1, begin, end), end);
      if (begin <= j && j < end) product[static_cast<size_t>(j - begin)] *= row[j];
    }
    for (int64_t i = begin; i < end; ++i) {
      double& z = secular.z[static_cast<size_t>(i)];
      z = std::copysign(std::sqrt(std::max(0., product[static_cast<size_t>(i - begin)])), z);
    }
  });
}

/// `coupling`: the off-diagonal element between the parts, whose magnitude both have lost at their ends.
void TridiagonalEigenpairs::Part::merge(const Part& left, const Part& right, double coupling) {
  first = left.vectors(0, static_cast<int64_t>(left.values.size()));
  second = right.vectors(0, static_cast<int64_t>(right.values.size()));
  std::vector<double> d = left.values;
  d.insert(d.end(), right.values.begin(), right.values.end());
  // z = (last components of the first's vectors, first components of the second's) / sqrt 2.
  const at::Tensor z =
      at::cat({first.select(1, first.size(1) - 1), second.select(1, 0) * std::copysign(1., coupling)})
          .div_(std::sqrt(2.));
  const double* components = z.data_ptr<double>();
  secular = deflate(std::move(d), {components, components + z.numel()}, 2 * std::abs(coupling));

  std::vector<double> all;
  find_roots(all);
  all.insert(all.end(), secular.deflated_values.begin(), secular.deflated_values.end());
  source.resize(all.size());
  std::iota(source.begin(), source.end(), int64_t{0});
  std::stable_sort(source.begin(), source.end(), [&](int64_t a, int64_t b) {
    return all[static_cast<size_t>(a)] < all[static_cast<size_t>(b)];
  });
  for (const int64_t i : source) values.push_back(all[static_cast<size_t>(i)]);
}

/// Eigenvector `index` (as in `source`) over the parts' eigenvectors; `column` places those that matter.
void TridiagonalEigenpairs::Part::coefficients(int64_t index, const std::vector<int64_t>& column,
                                               double* row) const {
  const auto k = static_cast<int64_t>(secular.kept.size());
  const auto place = [&](int64_t i) -> double& { return row[column[static_cast<size_t>(i)]]; };
  if (index >= k) {
    place(secular.deflated[static_cast<size_t>(index - k)]) = 1;
  } else {
    const double* delta = differences.data_ptr<double>() + index * k;
    const auto component = [&](int64_t i) {
      return k <= 2 ? delta[i] : secular.z[static_cast<size_t>(i)] / delta[i];
    };
    double squares = 0;
    for (int64_t i = 0; i < k; ++i) squares += component(i) * component(i);
    const double scale = 1 / std::sqrt(squares);
    for (int64_t i = 0; i < k; ++i) place(secular.kept[static_cast<size_t>(i)]) = component(i) * scale;
  }
  for (auto turn = secular.rotations.rbegin(); turn != secular.rotations.rend(); ++turn) {
    double &p = place(turn->p), &q = place(turn->q);
    const double a = turn->c * p - turn->s * q;
    q = turn->s * p + turn->c * q;
    p = a;
  }
}

at::Tensor TridiagonalEigenpairs::Part::vectors(int64_t begin, int64_t end) const {
  if (leaf.defined()) return leaf.narrow(0, begin, end - begin);
  const int64_t n1 = first.size(0), n = n1 + second.size(0);
  const auto k = static_cast<int64_t>(secular.kept.size());

  // Deflated and never turned: an eigenvector of a part is one of the whole. The rest is a product.
  std::vector<bool> mixed(static_cast<size_t>(n), false);
  for (const int64_t i : secular.kept) mixed[static_cast<size_t>(i)] = true;
  for (const Rotation& turn : secular.rotations)
    mixed[static_cast<size_t>(turn.p)] = mixed[static_cast<size_t>(turn.q)] = true;
  std::vector<int64_t> columns, column(static_cast<size_t>(n), -1);
  int64_t of_first = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!mixed[static_cast<size_t>(i)]) continue;
    column[static_cast<size_t>(i)] = static_cast<int64_t>(columns.size());
    columns.push_back(i < n1 ? i : i - n1);
    of_first += i < n1;
  }
  at::Tensor result = at::zeros({end - begin, n}, at::kDouble);
  std::vector<int64_t> products, rows;  // which roots, and where they go
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = source[static_cast<size_t>(i)];
    const int64_t original = from < k ? -1 : secular.deflated[static_cast<size_t>(from - k)];
    if (original < 0 || mixed[static_cast<size_t>(original)]) {
      products.push_back(from);
      rows.push_back(i - begin);
    } else if (original < n1) {
      result[i - begin].narrow(0, 0, n1).copy_(first[original]);
    } else {
      result[i - begin].narrow(0, n1, n - n1).copy_(second[original - n1]);
    }
  }
  if (products.empty()) return result;

  const auto wide = static_cast<int64_t>(columns.size()), high = static_cast<int64_t>(products.size());
  at::Tensor s = at::zeros({high, wide}, at::kDouble);
  double* base = s.data_ptr<double>();
  parallel_ranges(high, kGrain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      coefficients(products[static_cast<size_t>(i)], column, base + i * wide);
  });
  const at::Tensor index = at::tensor(columns, at::kLong);
  const auto taken = [&](const at::Tensor& part, int64_t from, int64_t count) {
    return count == part.size(0) ? part : part.index_select(0, index.narrow(0, from, count));
  };
  const bool everything = high == end - begin;
  at::Tensor target = everything ? result : at::empty({high, n}, at::kDouble);
  at::Tensor left = target.narrow(1, 0, n1), right = target.narrow(1, n1, n - n1);
  at::mm_out(left, s.narrow(1, 0, of_first), taken(first, 0, of_first));
  at::mm_out(right, s.narrow(1, of_first, wide - of_first), taken(second, of_first, wide - of_first));
  if (!everything) result.index_copy_(0, at::tensor(rows, at::kLong), target);
  return result;
}

std::unique_ptr<TridiagonalEigenpairs::Part> TridiagonalEigenpairs::solve(
    std::vector<double>& diagonal, const std::vector<double>& off_diagonal, int64_t begin, int64_t end) {
  auto part = std::make_unique<Part>();
  const int64_t n = end - begin;
  if (n > kLeaf) {
    const int64_t middle = begin + n / 2;
    const double coupling = off_diagonal[static_cast<size_t>(middle - 1)];
    diagonal[static_cast<size_t>(middle - 1)] -= std::abs(coupling);
    diagonal[static_cast<size_t>(middle)] -= std::abs(coupling);
    const auto left = solve(diagonal, off_diagonal, begin, middle);
    const auto right = solve(diagonal, off_diagonal, middle, end);
    part->merge(*left, *right, coupling);
    return part;
  }
  part->values.assign(diagonal.begin() + begin, diagonal.begin() + end);
  part->leaf = at::empty({n, n}, at::kDouble);
  std::vector<double> e(off_diagonal.begin() + begin, off_diagonal.begin() + (end - 1));
  const int size = static_cast<int>(n), work_size = static_cast<int>(1 + 4 * n + n * n),
            integers_size = static_cast<int>(3 + 5 * n);
  std::vector<double> work(static_cast<size_t>(work_size));
  std::vector<int> integers(static_cast<size_t>(integers_size));
  int info = 0;
  // By columns there, by rows here: one eigenvector a row.
  dstedc_("I", &size, part->values.data(), e.data(), part->leaf.data_ptr<double>(), &size, work.data(),
          &work_size, integers.data(), &integers_size, &info);
  require_converged(info, n, "dstedc");
  return part;
}

TridiagonalEigenpairs::TridiagonalEigenpairs(const std::vector<double>& diagonal,
                                             const std::vector<double>& off_diagonal) {
  std::vector<double> torn = diagonal;
  whole_ = solve(torn, off_diagonal, 0, static_cast<int64_t>(diagonal.size()));
}
TridiagonalEigenpairs::~TridiagonalEigenpairs() = default;
TridiagonalEigenpairs::TridiagonalEigenpairs(TridiagonalEigenpairs&&) noexcept = default;

const std::vector<double>& TridiagonalEigenpairs::values() const { return whole_->values; }
at::Tensor TridiagonalEigenpairs::vectors(int64_t begin, int64_t end) const {
  return whole_->vectors(begin, end);
}

}  // namespace efface
