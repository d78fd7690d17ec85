#include <algorithm>
#include <numeric>

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
  const std::vector<AttentionShape>& shapes = state.attention;
  std::vector<std::vector<int64_t>> answers(prompts.size());
  if (prompts.empty() || max_new_tokens <= 0) return answers;

  Running running;
  for (size_t i = 0; i < prompts.size(); ++i) {
    check_positions(state.config,
                    "prompt " + std::to_string(i) + " and " + std::to_string(max_new_tokens) + " new tokens",
                    static_cast<int64_t>(prompts[i].size()) + max_new_tokens);
    running.sequence.push_back(static_cast<int64_t>(i));
    running.length.push_back(static_cast<int64_t>(prompts[i].size()));
  }
  const int64_t capacity = *std::max_element(running.length.begin(), running.length.end()) + max_new_tokens;
  for (size_t i = 0; i < shapes.size(); ++i)
    running.caches.push_back(make_cache(shapes[i], static_cast<int64_t>(prompts.size()), capacity,
                                        state.weights.layers[i].dtype, device));

  const auto run = [&](at::Tensor hidden, const State::Attend& attend) {
    for (int i = 0; i < static_cast<int>(shapes.size()); ++i)
      hidden = state.run_layer(i, hidden, attend, nullptr);
    return hidden;
  };
  /// Fills the caches with all there is of the running sequences -> hidden states of their last tokens.
  const auto prefill = [&] {
    std::vector<TokenRow> rows;
    std::vector<int64_t> row_of_token, last_tokens;
    for (size_t i = 0; i < running.sequence.size(); ++i) {
      const int64_t sequence = running.sequence[i];
      std::vector<int64_t> ids = prompts[sequence];
      ids.insert(ids.end(), answers[sequence].begin(), answers[sequence].end());
      running.length[i] = static_cast<int64_t>(ids.size());
      row_of_token.insert(row_of_token.end(), ids.size(), static_cast<int64_t>(i));
      last_tokens.push_back(static_cast<int64_t>(row_of_token.size()) - 1);
      rows.push_back({std::move(ids), running.length[i]});
    }
    const RaggedBatch batch = make_batch(rows, device);
    const at::Tensor token_rows = index_tensor(row_of_token, device);
    std::map<at::ScalarType, std::shared_ptr<const AttentionPlan>> plans;
    const at::Tensor hidden = run(embed(batch), [&](int layer, const at::Tensor& qkv) {
      auto& plan = plans[accumulation_type(qkv.scalar_type())];
      if (!plan) plan = state.plan(batch, qkv.scalar_type());
      at::Tensor rotated = qkv;
      rotate_queries_keys_(rotated, shapes[layer], plan->rotary);
      store_keys_values(running.caches[layer], rotated, shapes[layer], token_rows, batch.positions);
      return attend_rotated(rotated, shapes[layer], *plan);
    });
    return hidden.index_select(0, index_tensor(last_tokens, device));
  };
  /// Runs the last id of each sequence, which goes into the caches.
  const auto step = [&] {
    const at::Tensor positions = index_tensor(running.length, device);
    const at::Tensor all_rows = at::arange(static_cast<int64_t>(running.length.size()), positions.options());
    std::vector<int64_t> offsets(running.length.size() + 1);
    std::iota(offsets.begin(), offsets.end(), 0);
    std::map<at::ScalarType, std::vector<RotaryTable>> tables;
    const at::Tensor ids = index_tensor(running.last_id, device);
    const at::Tensor hidden = run(state.embed(ids), [&](int layer, const at::Tensor& qkv) {
      const AttentionShape& shape = shapes[layer];
      auto& rotary = tables[accumulation_type(qkv.scalar_type())];
      if (rotary.empty())
        for (const RopeConfig& rope : state.config.ropes)
          rotary.push_back(make_rotary_table(rope, shape.head_dim, positions, offsets, qkv.scalar_type()));
      at::Tensor rotated = qkv;
      rotate_queries_keys_(rotated, shape, rotary);
      store_keys_values(running.caches[layer], rotated, shape, all_rows, positions);
      return attend_to_cache(rotated, shape, running.caches[layer], positions);
    });
    for (int64_t& length : running.length) ++length;
    return hidden;
  };
  const auto cache_is_outdated = [&] {
    for (const RopeConfig& rope : state.config.ropes)
      for (const int64_t length : running.length)
        if (rope.recomputes_cache_at(length + 1)) return true;
    return false;
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

  bool open = advance(prefill());
  while (open) open = advance(cache_is_outdated() ? prefill() : step());
  return answers;
}

}  // namespace efface
