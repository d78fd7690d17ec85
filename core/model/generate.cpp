#include <algorithm>

#include "core/model/state.hpp"
#include "core/model/transformer.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

constexpr int64_t kRowsSampled = 16;  // at a time: their logits are held whole

at::Tensor index_tensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

/// The sequences still being written: row i of every cache belongs to prompts[sequence[i]].
struct Running {
  std::vector<int64_t> sequence;
  std::vector<int64_t> length;   ///< places of its cache in use
  std::vector<int64_t> last_id;  ///< chosen, but not yet in the cache
  std::vector<KeyValueCache> caches;

  void keep(const std::vector<int64_t>& rows, at::Device device) {
    if (rows.size() == sequence.size()) return;
    const auto select = [&](std::vector<int64_t>& values) {
      std::vector<int64_t> kept;
      for (int64_t row : rows) kept.push_back(values[row]);
      values = std::move(kept);
    };
    select(sequence);
    select(length);
    select(last_id);
    const at::Tensor index = index_tensor(rows, device);
    for (KeyValueCache& cache : caches)
      cache = {cache.keys.index_select(0, index), cache.values.index_select(0, index)};
  }
};

/// The next id of each sequence, [rows], from its last hidden state, normalised. `places[i]`: which prompt it
/// is, and how many tokens of its answer there are; together with the seed they are the random number's key.
at::Tensor next_ids(const Transformer& model, const at::Tensor& hidden, const Sampling& sampling,
                    const std::vector<std::pair<int64_t, int64_t>>& places) {
  if (sampling.temperature == 0) return model.argmax(hidden);
  at::Tensor uniform = at::empty({hidden.size(0)}, at::kFloat);
  for (size_t i = 0; i < places.size(); ++i)
    uniform[static_cast<int64_t>(i)] = philox_uniform(
        {sampling.seed, "sampling", std::to_string(places[i].first)}, 1, 1, 0, places[i].second)[0][0];
  std::vector<at::Tensor> ids;
  for (int64_t row = 0; row < hidden.size(0); row += kRowsSampled) {
    const int64_t count = std::min(kRowsSampled, hidden.size(0) - row);
    ids.push_back(sample(model.logits(hidden.narrow(0, row, count)), uniform.narrow(0, row, count),
                         sampling.temperature, sampling.top_k));
  }
  return at::cat(ids);
}

}  // namespace

std::vector<std::vector<int64_t>> Transformer::generate(const std::vector<std::vector<int64_t>>& prompts,
                                                        int64_t max_new_tokens,
                                                        const Sampling& sampling) const {
  const at::NoGradGuard no_grad;
  const State& state = *state_;
  const at::Device device = state.mesh.device;
  const AttentionShape shape = state.attention_shape();
  const double theta = state.config.rope_theta;
  std::vector<std::vector<int64_t>> answers(prompts.size());
  if (prompts.empty() || max_new_tokens <= 0) return answers;

  std::vector<TokenRow> rows;
  Running running;
  for (size_t i = 0; i < prompts.size(); ++i) {
    check_positions(state.config,
                    "prompt " + std::to_string(i) + " and " + std::to_string(max_new_tokens) + " new tokens",
                    static_cast<int64_t>(prompts[i].size()) + max_new_tokens);
    rows.push_back({prompts[i], static_cast<int64_t>(prompts[i].size())});
    running.sequence.push_back(static_cast<int64_t>(i));
    running.length.push_back(static_cast<int64_t>(prompts[i].size()));
  }
  const RaggedBatch batch = make_batch(rows, device);
  const int64_t capacity = *std::max_element(running.length.begin(), running.length.end()) + max_new_tokens;
  for (const DecoderLayer& layer : state.weights.layers)
    running.caches.push_back(make_cache(shape, batch.rows(), capacity, layer.dtype, device));

  const auto run = [&](at::Tensor hidden, const State::Attention& attention) {
    for (int i = 0; i < static_cast<int>(state.weights.layers.size()); ++i)
      hidden = state.run_layer(i, hidden, attention, nullptr);
    return hidden;
  };
  /// Appends the next ids; false when every sequence has ended.
  const auto advance = [&](const at::Tensor& hidden) {
    std::vector<std::pair<int64_t, int64_t>> places;
    for (int64_t i : running.sequence) places.emplace_back(i, static_cast<int64_t>(answers[i].size()));
    const at::Tensor next = next_ids(*this, final_norm(hidden), sampling, places).cpu();
    running.last_id.assign(next.data_ptr<int64_t>(), next.data_ptr<int64_t>() + next.numel());
    std::vector<int64_t> open;
    for (size_t i = 0; i < running.sequence.size(); ++i) {
      const auto& stops = state.config.eos_token_ids;
      if (std::find(stops.begin(), stops.end(), running.last_id[i]) != stops.end()) continue;
      auto& answer = answers[running.sequence[i]];
      answer.push_back(running.last_id[i]);
      if (static_cast<int64_t>(answer.size()) < max_new_tokens) open.push_back(static_cast<int64_t>(i));
    }
    running.keep(open, device);
    return !open.empty();
  };

  std::map<at::ScalarType, std::shared_ptr<const AttentionPlan>> plans;
  std::vector<int64_t> row_of_token, last_tokens;
  for (int64_t row = 0; row < batch.rows(); ++row) {
    row_of_token.insert(row_of_token.end(), batch.offsets[row + 1] - batch.offsets[row], row);
    last_tokens.push_back(batch.offsets[row + 1] - 1);
  }
  const at::Tensor token_rows = index_tensor(row_of_token, device);
  at::Tensor hidden = run(embed(batch), [&](int layer, const at::Tensor& qkv) {
    auto& plan = plans[accumulation_type(qkv.scalar_type())];
    if (!plan) plan = state.plan(batch, qkv.scalar_type());
    at::Tensor rotated = qkv;
    rotate_(rotated, shape.heads + shape.kv_heads, plan->rotary, /*inverse=*/false);
    store_keys_values(running.caches[layer], rotated, shape, token_rows, batch.positions);
    return attend_rotated(rotated, shape, *plan);
  });

  bool open = advance(hidden.index_select(0, index_tensor(last_tokens, device)));
  while (open) {
    const at::Tensor positions = index_tensor(running.length, device);
    const at::Tensor all_rows = at::arange(static_cast<int64_t>(running.length.size()), positions.options());
    const int64_t longest = *std::max_element(running.length.begin(), running.length.end()) + 1;
    const at::Tensor mask = at::arange(longest, positions.options()).unsqueeze(0).le(positions.unsqueeze(1));
    std::map<at::ScalarType, RotaryTable> tables;
    const at::Tensor ids = index_tensor(running.last_id, device);
    hidden = embed_tokens(state.weights.embedding, ids);
    hidden = run(hidden, [&](int layer, const at::Tensor& qkv) {
      RotaryTable& table = tables[accumulation_type(qkv.scalar_type())];
      if (!table.cos.defined())
        table = make_rotary_table(positions, shape.head_dim, theta, qkv.scalar_type());
      at::Tensor rotated = qkv;
      rotate_(rotated, shape.heads + shape.kv_heads, table, /*inverse=*/false);
      store_keys_values(running.caches[layer], rotated, shape, all_rows, positions);
      return attend_to_cache(rotated, shape, running.caches[layer], mask.view({mask.size(0), 1, 1, longest}));
    });
    for (int64_t& length : running.length) ++length;
    open = advance(hidden);
  }
  return answers;
}

}  // namespace efface
