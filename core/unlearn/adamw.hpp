// Adam (Kingma & Ba 2015) over one flat vector: a handful of vector operations a step. Weight decay is not
// here: it acts on dW, which only the parameters know how to reach (AdamW's decoupled form).
#pragma once

#include <ATen/ATen.h>

namespace efface {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

class Adam {
 public:
  Adam(int64_t size, const at::TensorOptions& tensor_options, AdamOptions options)
      : options_(options), first_(at::zeros({size}, tensor_options)), second_(at::zeros_like(first_)) {}

  /// m^ / (sqrt(v^) + eps) after the gradient [size] of step `step`, counted from 0; the parameters move by
  /// -lr times it.
  at::Tensor direction(const at::Tensor& gradient, int64_t step);

  const at::Tensor& first_moment() const { return first_; }
  const at::Tensor& second_moment() const { return second_; }

 private:
  AdamOptions options_;
  at::Tensor first_, second_;
};

}  // namespace efface
