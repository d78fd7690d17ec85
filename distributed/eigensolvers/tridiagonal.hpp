// Eigenpairs of a symmetric tridiagonal matrix by divide and conquer (Cuppen 1981; Gu and Eisenstat 1995),
// where the eigenvectors of the last merge, most of the work, are formed for those alone that are wanted.
// Every loop runs on all of this rank's threads; LAPACK's dstedc does not.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

namespace efface {

class TridiagonalEigenpairs {
 public:
  /// `diagonal` [n], `off_diagonal` [n - 1], n >= 1, fp64, finite. Throws Error(numeric) when LAPACK does not
  /// converge on a part. Needs about 1.5 n^2 numbers.
  TridiagonalEigenpairs(const std::vector<double>& diagonal, const std::vector<double>& off_diagonal);
  ~TridiagonalEigenpairs();
  TridiagonalEigenpairs(TridiagonalEigenpairs&&) noexcept;

  const std::vector<double>& values() const;  ///< ascending
  /// [end - begin, n]: one eigenvector a row, of values()[begin .. end).
  at::Tensor vectors(int64_t begin, int64_t end) const;

 private:
  struct Part;
  static std::unique_ptr<Part> solve(std::vector<double>& diagonal, const std::vector<double>& off_diagonal,
                                     int64_t begin, int64_t end);
  std::unique_ptr<Part> whole_;
};

}  // namespace efface
