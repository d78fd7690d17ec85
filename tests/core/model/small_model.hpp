// A random decoder small enough for fp64 comparisons, and what tests do to it.
#pragma once

#include <map>
#include <vector>

#include "core/model/transformer.hpp"
#include "distributed/philox.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {

/// 8 heads on 4 key-value heads (1, 2, 4 tensor ranks), or 9 on 3 (1, 3). The vocabulary divides by neither.
inline ModelConfig small_config(int tensor_size) {
  ModelConfig config;
  const bool by_three = tensor_size == 3;
  config.heads = by_three ? 9 : 8;
  config.kv_heads = by_three ? 3 : 4;
  config.head_dim = 8;
  config.hidden_size = config.heads * config.head_dim;
  config.intermediate_size = 96;
  config.layers = 3;
  config.vocab_size = 97;
  config.max_positions = 64;
  return config;
}

inline RaggedBatch ragged_batch(const ModelConfig& config, const std::vector<int64_t>& lengths) {
  std::vector<TokenRow> rows;
  int64_t next = 1;
  for (int64_t length : lengths) {
    TokenRow row;
    for (int64_t i = 0; i < length; ++i) row.ids.push_back((next = (next * 31 + 7) % config.vocab_size));
    row.prompt_length = std::max<int64_t>(1, length / 3);
    rows.push_back(row);
  }
  return make_batch(rows);
}

/// This rank's shard of a global [out, in] weight-like matrix: rows of column-parallel, columns of
/// row-parallel.
inline at::Tensor shard_rows(const at::Tensor& global, const Mesh& mesh) {
  const auto [begin, end] = even_range(global.size(0), mesh.tensor_rank(), mesh.tensor_size());
  return global.narrow(0, begin, end - begin).clone();
}
inline at::Tensor shard_columns(const at::Tensor& global, const Mesh& mesh) {
  return shard_rows(global.t(), mesh).t().contiguous();
}

/// The same random global adapter on every mesh, this rank's part of it, as leaves.
inline LoraAdapter random_adapter(const ModuleId& module, const Weight& weight, const Mesh& mesh,
                                  at::ScalarType dtype, int64_t rank = 4) {
  const std::string name = module_name(module);
  const at::Tensor a = philox_normal({7, "a", name}, rank, weight.global_shape[1]).to(dtype) * 0.2;
  const at::Tensor b = philox_normal({7, "b", name}, weight.global_shape[0], rank).to(dtype) * 0.2;
  const bool row_parallel = is_row_parallel(module.projection);
  LoraAdapter adapter;
  adapter.a = (row_parallel ? shard_columns(a, mesh) : a.clone()).requires_grad_();
  adapter.b = (row_parallel ? b.clone() : shard_rows(b, mesh)).requires_grad_();
  adapter.scale = 1.5;
  return adapter;
}

inline std::map<ModuleId, LoraAdapter> attach_adapters(Transformer& model,
                                                       const std::vector<Projection>& projections,
                                                       int64_t rank = 4) {
  std::map<ModuleId, LoraAdapter> adapters;
  for (const ModuleId& module : modules_of(0, static_cast<int>(model.config().layers), projections)) {
    adapters[module] = random_adapter(module, model.weight(module), model.mesh(), model.dtype(), rank);
    model.set_adapter(module, adapters[module]);
  }
  return adapters;
}

/// Shards of a global matrix put together again: by rows, by columns, or summed where each holds a part.
inline at::Tensor gather_rows(const at::Tensor& local, const Mesh& mesh) {
  return mesh.tensor.all_gather_rows(local);
}
inline at::Tensor gather_columns(const at::Tensor& local, const Mesh& mesh) {
  return mesh.tensor.all_gather_rows(local.t().contiguous()).t();
}
inline at::Tensor sum_parts(const at::Tensor& local, const Mesh& mesh) {
  at::Tensor sum = local.clone();
  mesh.tensor.all_reduce(sum);
  return sum;
}

}  // namespace efface::testing
