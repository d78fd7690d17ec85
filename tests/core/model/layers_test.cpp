// The pieces between and inside the matrix products, against their formulas written out in fp64.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "core/model/attention.hpp"
#include "core/model/elementwise.hpp"
#include "core/model/product.hpp"
#include "tests/core/model/small_model.hpp"

namespace efface::testing {
namespace {

at::Tensor draw(const char* name, int64_t rows, int64_t columns) {
  return philox_normal({4, "layers", name}, rows, columns);
}

/// What rounding to the dtype alone may change.
double rounding(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 2e-6 : 1e-2;
}

/// Value and gradient of `layer` at x in `dtype` are those of `formula` at the same (rounded) x in fp64.
template <typename Layer, typename Formula>
void expect_formula(const at::Tensor& x32, at::ScalarType dtype, Layer layer, Formula formula) {
  const at::Tensor x = x32.to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
  const at::Tensor exact = x.detach().to(at::kDouble).requires_grad_();
  const at::Tensor y = layer(x), expected = formula(exact);
  const at::Tensor direction = draw("direction", y.size(0), y.size(1)).to(dtype);
  (y * direction).sum().backward();
  (expected * direction.to(at::kDouble)).sum().backward();
  EXPECT_EQ(y.scalar_type(), dtype);
  EXPECT_LT(relative_error(y, expected), rounding(dtype)) << "value in " << dtype;
  EXPECT_LT(relative_error(x.grad(), exact.grad()), 2 * rounding(dtype)) << "gradient in " << dtype;
}

constexpr at::ScalarType kDtypes[] = {at::kDouble, at::kFloat, at::kBFloat16};

TEST(Layers, RmsNormIsItsFormula) {
  const at::Tensor weight = draw("weight", 1, 77).squeeze(0);
  for (at::ScalarType dtype : kDtypes) {
    const at::Tensor w = weight.to(dtype);
    expect_formula(
        draw("x", 50, 77) * 3, dtype, [&](const at::Tensor& x) { return rms_norm(x, w, 1e-5); },
        [&](const at::Tensor& x) {
          return x / (x.square().mean(1, true) + 1e-5).sqrt() * w.to(at::kDouble);
        });
  }
}

TEST(Layers, SwigluIsItsFormula) {
  for (at::ScalarType dtype : kDtypes)
    expect_formula(
        draw("gate_up", 50, 2 * 77) * 4, dtype,
        [](const at::Tensor& x) { return gated(x, Activation::silu); },
        [](const at::Tensor& x) {
          const auto halves = x.chunk(2, 1);
          return halves[0] * at::sigmoid(halves[0]) * halves[1];
        });
}

TEST(Layers, SwigluOfLargeGatesIsExactAndOfNaNIsNaN) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (const auto& [gate, expected] : std::vector<std::pair<float, float>>{
           {200.0f, 400.0f}, {1e6f, 2e6f}, {-200.0f, 0.0f}, {-1e6f, 0.0f}, {inf, inf}, {0.0f, 0.0f}}) {
    const at::Tensor y = gated(at::tensor({gate, 2.0f}).view({1, 2}), Activation::silu);
    EXPECT_FLOAT_EQ(y.item<float>() + 1.0f, expected + 1.0f) << gate;
  }
  EXPECT_TRUE(std::isnan(gated(at::tensor({nan, 2.0f}).view({1, 2}), Activation::silu).item<float>()));
  EXPECT_TRUE(std::isnan(gated(at::tensor({1.0f, nan}).view({1, 2}), Activation::silu).item<float>()));
}

TEST(Layers, ProductsOfAnyLayoutAreThoseOfTheBlas) {
  const at::Tensor a = draw("a", 37, 300), b = draw("b", 300, 500);
  const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  EXPECT_LT(relative_error(matrix_product(a, b), expected), 1e-6);
  EXPECT_LT(relative_error(matrix_product(a, b.t().contiguous().t()), expected), 1e-6);
  EXPECT_LT(relative_error(matrix_product(a.t().contiguous().t(), b.narrow(1, 100, 200)),
                           expected.narrow(1, 100, 200)),
            1e-6);
  EXPECT_EQ(matrix_product(a.narrow(0, 0, 0), b).size(0), 0);
}

/// RoPE as a product of complex numbers (x_i + i x_{i + d/2}) e^{i position theta^(-2i/d)}.
at::Tensor rotated_by_formula(const at::Tensor& x, int64_t heads, double theta) {
  const int64_t length = x.size(0), half = x.size(1) / heads / 2;
  const at::Tensor halves = x.view({length, heads, 2, half});
  const at::Tensor frequency = at::pow(theta, -at::arange(half, at::kDouble) / half);
  const at::Tensor angle = at::outer(at::arange(length, at::kDouble), frequency).unsqueeze(1);
  const at::Tensor turned =
      at::complex(halves.select(2, 0), halves.select(2, 1)) * at::polar(at::ones_like(angle), angle);
  return at::cat({at::real(turned), at::imag(turned)}, 2);
}

/// softmax(q k^T / sqrt(d) under a causal mask) v for one row: [length, width] -> [length, heads * d].
at::Tensor attention_by_formula(const at::Tensor& qkv, const AttentionShape& shape, double theta) {
  const int64_t length = qkv.size(0), d = shape.head_dim, group = shape.heads / shape.kv_heads;
  const at::Tensor q = rotated_by_formula(qkv.narrow(1, 0, shape.heads * d), shape.heads, theta);
  const at::Tensor k =
      rotated_by_formula(qkv.narrow(1, shape.heads * d, shape.kv_heads * d), shape.kv_heads, theta);
  const at::Tensor v =
      qkv.narrow(1, (shape.heads + shape.kv_heads) * d, shape.kv_heads * d).view({length, shape.kv_heads, d});
  const at::Tensor future = at::ones({length, length}, at::kBool).triu(1);
  std::vector<at::Tensor> outputs;
  for (int64_t head = 0; head < shape.heads; ++head) {
    const at::Tensor scores = at::mm(q.select(1, head), k.select(1, head / group).t()) / std::sqrt(d);
    outputs.push_back(at::mm(at::softmax(scores.masked_fill(future, -1e30), 1), v.select(1, head / group)));
  }
  return at::cat(outputs, 1);
}

TEST(Layers, AttentionOfEveryRowIsItsFormula) {
  const AttentionShape shape{6, 2, 16};
  const double theta = 1000;
  const std::vector<std::vector<int64_t>> batches = {{9, 9, 9}, {1}, {70, 3, 9, 66, 1, 8, 9}};
  for (const auto& lengths : batches) {
    const RaggedBatch batch = ragged_batch(small_config(1), lengths);
    for (at::ScalarType dtype : kDtypes) {
      const auto plan = plan_attention(batch, {{.theta = theta}}, {shape}, dtype);
      const auto formula = [&](const at::Tensor& x) {
        std::vector<at::Tensor> rows;
        for (size_t i = 0; i < lengths.size(); ++i)
          rows.push_back(attention_by_formula(x.narrow(0, batch.offsets[i], lengths[i]), shape, theta));
        return at::cat(rows);
      };
      const at::Tensor qkv = draw("qkv", batch.tokens(), shape.width());
      // attend() may write into what it is given.
      expect_formula(
          qkv, dtype, [&](const at::Tensor& x) { return attend(x * 1, shape, plan); }, formula);
      expect_formula(
          qkv, dtype, [&](const at::Tensor& x) { return attend_composed(x, shape, plan); }, formula);
    }
  }
}

}  // namespace
}  // namespace efface::testing
