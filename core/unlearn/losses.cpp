#include "core/unlearn/losses.hpp"

namespace efface {

at::Tensor mean_shares(const at::Tensor& label_rows, const std::vector<double>& first_weights,
                       const at::TensorOptions& options) {
  const auto rows_on_host = label_rows.to(at::kCPU).contiguous();
  const int64_t* row = rows_on_host.const_data_ptr<int64_t>();
  const int64_t labels = label_rows.numel();
  std::vector<double> weight(labels, 1.0), total(first_weights.size(), 0.0);
  for (int64_t i = 0; i < labels; ++i) {
    if (i == 0 || row[i] != row[i - 1]) weight[i] = first_weights[row[i]];
    total[row[i]] += weight[i];
  }
  for (int64_t i = 0; i < labels; ++i) weight[i] /= total[row[i]];
  return at::tensor(weight, at::kDouble).to(options);
}

at::Tensor row_sums(const at::Tensor& label_values, const at::Tensor& label_rows, int64_t rows) {
  return at::zeros({rows}, label_values.options()).index_add(0, label_rows, label_values);
}

at::Tensor npo_loss(const at::Tensor& log_probability, const at::Tensor& reference, double beta) {
  return at::log_sigmoid((log_probability - reference) * -beta) * (-2.0 / beta);
}

at::Tensor dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected, double beta) {
  return at::log_sigmoid((chosen - rejected) * beta) * (-2.0 / beta);
}

at::Tensor sim_npo_loss(const at::Tensor& mean_nll, double beta, double delta) {
  return at::log_sigmoid((mean_nll - delta) * beta) * (-2.0 / beta);
}

at::Tensor unlikelihood_loss(const at::Tensor& label_log_probability) {
  constexpr double kFloor = 1e-6;
  return -at::log(kFloor - at::expm1(label_log_probability));
}

at::Tensor deviation(const at::Tensor& h, const at::Tensor& h0) {
  const auto direction = h / h.norm(2, -1, true);
  const auto direction0 = h0 / h0.norm(2, -1, true);
  return (direction - direction0).square().sum(-1) * 0.5;
}

}  // namespace efface
