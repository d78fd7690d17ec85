// The formulas that methods share, on plain tensors: no model, no batch, no ranks. Each gives one value per
// label or per row; the caller sums them and divides by the global count.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace efface {

/// Per label, its share in its row's weighted mean: the first label of a row counts `first_weights[row]`, the
/// others 1, and a row's shares sum to 1. `label_rows` [labels] in ascending order, every row with a label.
at::Tensor mean_shares(const at::Tensor& label_rows, const std::vector<double>& first_weights,
                       const at::TensorOptions& options);

/// [labels] -> [rows]: sum over each row's labels.
at::Tensor row_sums(const at::Tensor& label_values, const at::Tensor& label_rows, int64_t rows);

/// NPO (Zhang et al. 2024): -(2/beta) log sigmoid(-beta (log pi - log pi_ref)), log pi the sum over the row's
/// labels: [rows].
at::Tensor npo_loss(const at::Tensor& log_probability, const at::Tensor& reference, double beta);

/// DPO (Rafailov et al. 2023) in NPO's scale: -(2/beta) log sigmoid(beta (chosen - rejected)), each the log
/// pi - log pi_ref of a whole answer: [rows].
at::Tensor dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected, double beta);

/// SimNPO (Fan et al. 2024): -(2/beta) log sigmoid(beta (nll / |y| - delta)): no reference; [rows].
at::Tensor sim_npo_loss(const at::Tensor& mean_nll, double beta, double delta);

/// Unlikelihood (Welleck et al. 2020): -log(1 - p), p floored away from 1 by 1e-6 so that the gradient stays
/// finite: [labels].
at::Tensor unlikelihood_loss(const at::Tensor& label_log_probability);

/// d = 1/2 ||h/|h| - h0/|h0| ||^2 = 1 - cos(h, h0), in the form that keeps its digits near 0: [tokens].
at::Tensor deviation(const at::Tensor& h, const at::Tensor& h0);

}  // namespace efface
