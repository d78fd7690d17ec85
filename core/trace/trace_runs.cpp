#include "core/trace/trace_runs.hpp"

#include <cmath>

#include "distributed/philox.hpp"

namespace efface {
namespace {

// `copies` rows of each fact, one after the other.
RaggedBatch batch_of(const std::vector<TracedFact>& facts, int64_t copies, const Mesh& mesh) {
  std::vector<TokenRow> rows;
  for (const TracedFact& fact : facts)
    for (int64_t copy = 0; copy < copies; ++copy) rows.push_back({fact.ids, fact.length()});
  return make_batch(rows, mesh.device);
}

// Token index of position(fact) in each row of such a batch.
template <typename Position>
at::Tensor token_indices(const std::vector<TracedFact>& facts, const RaggedBatch& batch, Position position) {
  const auto copies = static_cast<size_t>(batch.rows()) / facts.size();
  std::vector<int64_t> indices;
  for (size_t row = 0; row < static_cast<size_t>(batch.rows()); ++row)
    indices.push_back(batch.offsets[row] + position(facts[row / copies]));
  return at::tensor(indices, at::kLong).to(batch.ids.device());
}

at::Tensor last_tokens(const std::vector<TracedFact>& facts, const RaggedBatch& batch) {
  return token_indices(facts, batch, [](const TracedFact& fact) { return fact.length() - 1; });
}

at::Tensor last_subject_tokens(const std::vector<TracedFact>& facts, const RaggedBatch& batch) {
  return token_indices(facts, batch, [](const TracedFact& fact) { return fact.last_subject(); });
}

std::vector<double> to_vector(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kCPU, at::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

// MLP outputs of every layer at the last subject token, [facts, hidden] each, of the clean run.
std::vector<at::Tensor> clean_mlp_outputs(const Transformer& model, const std::vector<TracedFact>& facts) {
  const RaggedBatch batch = batch_of(facts, 1, model.mesh());
  const at::Tensor places = last_subject_tokens(facts, batch);
  std::vector<at::Tensor> outputs(static_cast<size_t>(model.config().layers));
  Taps taps;
  taps.replace_mlp_output = [&](int layer, const at::Tensor& output) {
    outputs[static_cast<size_t>(layer)] = output.index_select(0, places);
    return output;
  };
  model.run_layers(model.embed(batch), batch, 0, -1, &taps);
  return outputs;
}

// Noise for the subject tokens, row by row of the batch: their token indices, and [their number, hidden].
std::pair<at::Tensor, at::Tensor> subject_noise(const std::vector<TracedFact>& facts,
                                                const RaggedBatch& batch, int64_t draws, int64_t hidden,
                                                uint64_t seed) {
  std::vector<int64_t> indices;
  std::vector<at::Tensor> noise;
  size_t row = 0;
  for (const TracedFact& fact : facts) {
    const int64_t tokens = fact.subject_end - fact.subject_begin;
    noise.push_back(philox_normal({seed, "trace_noise", fact.name}, draws * tokens, hidden));
    for (int64_t draw = 0; draw < draws; ++draw, ++row)
      for (int64_t token = fact.subject_begin; token < fact.subject_end; ++token)
        indices.push_back(batch.offsets[row] + token);
  }
  const auto device = batch.ids.device();
  return {at::tensor(indices, at::kLong).to(device), at::cat(noise).to(device)};
}

}  // namespace

CleanAnswers answer_clean(const Transformer& model, const std::vector<TracedFact>& facts) {
  const at::NoGradGuard no_grad;
  const RaggedBatch batch = batch_of(facts, 1, model.mesh());
  const at::Tensor hidden = model.forward(batch).index_select(0, last_tokens(facts, batch));
  const at::Tensor ids = model.argmax(hidden);
  CleanAnswers answers;
  answers.probabilities = to_vector(model.token_log_probabilities(hidden, ids).exp());
  for (double id : to_vector(ids)) answers.ids.push_back(static_cast<int64_t>(id));
  return answers;
}

double subject_embedding_deviation(const Transformer& model, const std::vector<TracedFact>& facts) {
  const at::NoGradGuard no_grad;
  double count = 0, sum = 0, squares = 0;
  for (const TracedFact& fact : facts) {
    const RaggedBatch batch = batch_of({fact}, 1, model.mesh());
    const at::Tensor entries = model.embed(batch)
                                   .narrow(0, fact.subject_begin, fact.subject_end - fact.subject_begin)
                                   .to(at::kDouble);
    count += static_cast<double>(entries.numel());
    sum += entries.sum().item<double>();
    squares += entries.square().sum().item<double>();
  }
  const double mean = sum / count;
  return std::sqrt(std::max(0.0, squares / count - mean * mean));
}

CorruptedEffects run_patched(const Transformer& model, const std::vector<TracedFact>& facts,
                             const std::vector<int64_t>& answers, const TraceOptions& options, double noise,
                             const std::function<void()>& done) {
  const at::NoGradGuard no_grad;
  const int layers = static_cast<int>(model.config().layers);
  const int64_t draws = options.draws;
  const std::vector<at::Tensor> clean = clean_mlp_outputs(model, facts);
  const RaggedBatch batch = batch_of(facts, draws, model.mesh());
  const at::Tensor ends = last_tokens(facts, batch), places = last_subject_tokens(facts, batch);
  std::vector<int64_t> wanted;
  for (int64_t answer : answers) wanted.insert(wanted.end(), static_cast<size_t>(draws), answer);
  const at::Tensor wanted_ids = at::tensor(wanted, at::kLong).to(batch.ids.device());
  const auto probabilities = [&](const at::Tensor& hidden) {  // [facts], mean over draws
    const at::Tensor last = model.final_norm(hidden.index_select(0, ends));
    return to_vector(model.token_log_probabilities(last, wanted_ids).exp().view({-1, draws}).mean(1));
  };

  Taps corrupt;
  corrupt.replace_embedding = [&](const at::Tensor& embedding) {
    const auto [indices, normal] = subject_noise(facts, batch, draws, embedding.size(1), options.seed);
    return embedding.index_add(0, indices, (normal * noise).to(embedding.scalar_type()));
  };
  std::vector<at::Tensor> corrupted{model.embed(batch, &corrupt)};  // [l]: what layer l reads
  for (int layer = 0; layer < layers; ++layer)
    corrupted.push_back(model.run_layers(corrupted.back(), batch, layer, layer + 1));

  CorruptedEffects effects;
  effects.corrupted = probabilities(corrupted.back());
  effects.patched.resize(facts.size());
  for (int layer = 0; layer < layers; ++layer) {
    const auto [begin, end] = restored_layers(layer, layers, options.restore_window);
    Taps restore;
    restore.replace_mlp_output = [&, end = end](int at, const at::Tensor& output) {
      if (at >= end) return output;
      return output.index_copy(0, places, clean[static_cast<size_t>(at)].repeat_interleave(draws, 0));
    };
    const auto p = probabilities(
        model.run_layers(corrupted[static_cast<size_t>(begin)], batch, begin, layers, &restore));
    for (size_t fact = 0; fact < facts.size(); ++fact) effects.patched[fact].push_back(p[fact]);
    done();
  }
  return effects;
}

}  // namespace efface
