#include "core/model/transformer.hpp"

#include <algorithm>

#include "core/model/nearest_name.hpp"
#include "core/model/state.hpp"
#include "distributed/collectives.hpp"
#include "distributed/error.hpp"

namespace efface {

Transformer::State::State(const ModelConfig& model, const Mesh& on, at::ScalarType in)
    : config(model), mesh(on), dtype(in) {
  check_tensor_parallel(config, mesh.tensor_size());
  weights = allocate_weights(config, mesh, dtype);
  for (int layer = 0; layer < config.layers; ++layer) {
    const LayerKind kind = config.kind(layer);
    const auto kv_heads = std::max<int64_t>(1, config.kv_heads / mesh.tensor_size());
    attention.push_back({config.heads / mesh.tensor_size(), kv_heads, config.head_dim, config.attention_scale,
                         config.attention_softcap, kind.window, kind.rope});
  }
}

std::shared_ptr<const AttentionPlan> Transformer::State::plan(const RaggedBatch& batch,
                                                              at::ScalarType dtype) const {
  for (int64_t row = 0; row < batch.rows(); ++row)
    check_positions(config, "row " + std::to_string(row) + " of a batch",
                    batch.offsets[row + 1] - batch.offsets[row]);
  return plan_attention(batch, config.ropes, attention, dtype);
}

at::Tensor Transformer::State::embed(const at::Tensor& ids) const {
  const at::Tensor hidden = embed_tokens(weights.embedding, ids);
  if (config.embedding_scale == 1) return hidden;
  return hidden * at::scalar_tensor(config.embedding_scale, hidden.options());
}

at::Tensor Transformer::State::norm_scale(const at::Tensor& weight) const {
  return config.norms_add_one ? weight.to(accumulation_type(weight.scalar_type())) + 1 : weight;
}

at::Tensor Transformer::State::norm(const at::Tensor& x, const at::Tensor& weight) const {
  return rms_norm(x, norm_scale(weight), config.rms_norm_eps);
}

at::Tensor Transformer::State::run_layer(int index, const at::Tensor& hidden, const Attend& attend,
                                         const Taps* taps) const {
  const DecoderLayer& layer = weights.layers[index];
  const auto see = [&](Input input, const at::Tensor& x) {
    if (taps && taps->on_input) taps->on_input({index, input}, x);
  };
  /// What attention or feed-forward adds to the residual, from this rank's part of it.
  const auto whole = [&](const at::Tensor& part, const at::Tensor& bias, const at::Tensor& output_norm) {
    at::Tensor sum = reduce_from_group(part, mesh.tensor);
    if (bias.defined()) sum = sum + bias;
    return output_norm.defined() ? norm(sum, output_norm) : sum;
  };

  const at::Tensor residual = hidden.to(layer.dtype);
  const at::Tensor x = copy_to_group(norm(residual, layer.attention_norm), mesh.tensor);
  see(Input::qkv, x);
  at::Tensor qkv = apply_linear(layer.qkv, x, adapters_enabled);
  if (layer.q_norm.defined())
    qkv = normalise_heads(qkv, attention[index], norm_scale(layer.q_norm), norm_scale(layer.k_norm),
                          config.rms_norm_eps);
  const at::Tensor attended = attend(index, qkv);
  see(Input::o, attended);
  const at::Tensor middle = residual + whole(apply_linear(layer.o, attended, adapters_enabled), layer.o.bias,
                                             layer.attention_output_norm);

  const at::Tensor z = copy_to_group(norm(middle, layer.feed_forward_norm), mesh.tensor);
  const at::Tensor part =
      layer.experts.empty() ? feed_forward(layer.feed_forward, z, see) : mixture(index, z, taps);
  at::Tensor output = whole(part, layer.feed_forward.down.bias, layer.feed_forward_output_norm);
  if (taps && taps->replace_mlp_output) output = taps->replace_mlp_output(index, output);
  return middle + output;
}

Transformer Transformer::load(const std::filesystem::path& folder, const Mesh& mesh,
                              TransformerOptions options) {
  const ModelConfig config = read_model_config(folder);
  Transformer model;
  model.state_ = std::make_shared<State>(config, mesh, options.dtype);
  model.state_->name_order = load_weights(folder, list_weights(config, mesh, model.state_->weights), config);
  return model;
}

Transformer Transformer::random(const ModelConfig& config, const Mesh& mesh, uint64_t seed,
                                TransformerOptions options) {
  Transformer model;
  model.state_ = std::make_shared<State>(config, mesh, options.dtype);
  randomise_weights(list_weights(config, mesh, model.state_->weights), config, seed);
  return model;
}

const ModelConfig& Transformer::config() const { return state_->config; }
const Mesh& Transformer::mesh() const { return state_->mesh; }
at::ScalarType Transformer::dtype() const { return state_->dtype; }

// --- forward -----------------------------------------------------------------------------------------------

at::Tensor Transformer::embed(const RaggedBatch& batch, const Taps* taps) const {
  at::Tensor hidden = state_->embed(batch.ids);
  if (taps && taps->replace_embedding) hidden = taps->replace_embedding(hidden);
  return hidden.to(state_->weights.layers.front().dtype);
}

at::Tensor Transformer::run_layers(at::Tensor hidden, const RaggedBatch& batch, int begin, int end,
                                   const Taps* taps) const {
  if (end < 0) end = static_cast<int>(state_->config.layers);
  std::map<at::ScalarType, std::shared_ptr<const AttentionPlan>>
      plans;  // fp64 layers have tables of their own
  const auto attention = [&](int layer, const at::Tensor& qkv) {
    auto& plan = plans[accumulation_type(qkv.scalar_type())];
    if (!plan) plan = state_->plan(batch, qkv.scalar_type());
    return attend(qkv, state_->attention[layer], plan);
  };
  for (int layer = begin; layer < end; ++layer) hidden = state_->run_layer(layer, hidden, attention, taps);
  return hidden;
}

at::Tensor Transformer::final_norm(const at::Tensor& hidden) const {
  return state_->norm(hidden, state_->weights.final_norm);
}

at::Tensor Transformer::forward(const RaggedBatch& batch, const Taps* taps) const {
  return final_norm(run_layers(embed(batch, taps), batch, 0, -1, taps));
}

at::Tensor Transformer::token_log_probabilities(const at::Tensor& hidden, const at::Tensor& ids) const {
  return vocab_log_probabilities(state_->weights.head, hidden, ids);
}

at::Tensor Transformer::kl_to_reference(const at::Tensor& hidden, const at::Tensor& reference_hidden) const {
  return vocab_kl_to_reference(state_->weights.head, hidden, reference_hidden);
}

at::Tensor Transformer::argmax(const at::Tensor& hidden) const {
  return vocab_argmax(state_->weights.head, hidden);
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const {
  return vocab_logits(state_->weights.head, hidden);
}

at::Tensor Transformer::label_log_probabilities(const RaggedBatch& batch) const {
  return token_log_probabilities(forward(batch).index_select(0, batch.label_positions), batch.label_ids);
}

// --- weights and adapters
// ------------------------------------------------------------------------------------

std::vector<Weight> Transformer::weights() const {
  std::vector<Weight> list = list_weights(state_->config, state_->mesh, state_->weights);
  if (state_->name_order.empty()) return list;
  std::map<std::string, size_t> place;
  for (const std::string& name : state_->name_order) place.emplace(name, place.size());
  std::stable_sort(list.begin(), list.end(), [&](const Weight& a, const Weight& b) {
    return place.at(a.stored_name) < place.at(b.stored_name);
  });
  return list;
}

Weight Transformer::weight(const std::string& name) const {
  std::vector<std::string> names;
  for (Weight& weight : list_weights(state_->config, state_->mesh, state_->weights)) {
    if (weight.name == name) return weight;
    names.push_back(weight.name);
  }
  throw Error(ErrorClass::model, "no tensor is called \"" + name + "\"",
              "did you mean " + nearest_name(name, names) + "?");
}

Weight Transformer::weight(const ModuleId& module) const { return weight(module_name(module) + ".weight"); }

at::Tensor Transformer::make_trainable(const ModuleId& module) {
  FusedLinear& linear = state_->weights.layers.at(module.layer).linear(module);
  LinearPart& part = linear.part(module.projection);
  if (part.trained.defined()) return part.trained;
  const at::Tensor rows = linear.local(part);
  const auto wide = at::promote_types(rows.scalar_type(), at::kFloat);
  part.trained = rows.to(wide).clone(at::MemoryFormat::Contiguous);
  if (linear.parts.size() == 1) linear.weight = part.trained.detach();
  return part.trained.requires_grad_();
}

void Transformer::set_layer_dtype(int begin, int end, at::ScalarType dtype) {
  for (int i = begin; i < end; ++i) {
    DecoderLayer& layer = state_->weights.layers.at(i);
    layer.dtype = dtype;
    for (at::Tensor* tensor : layer.replicated()) *tensor = tensor->to(dtype);
    for (FusedLinear* linear : layer.linears()) {
      if (linear->bias.defined()) linear->bias = linear->bias.to(dtype);
      if (linear->parts.size() > 1 || !linear->parts[0].trained.defined())
        linear->weight = linear->weight.to(dtype);
    }
  }
}

void Transformer::set_adapter(const ModuleId& module, LoraAdapter adapter) {
  FusedLinear& linear = state_->weights.layers.at(module.layer).linear(module);
  LinearPart& part = linear.part(module.projection);
  const int64_t in = linear.weight.size(1);
  if (adapter.a.dim() != 2 || adapter.b.dim() != 2 || adapter.a.size(1) != in ||
      adapter.b.size(0) != part.rows || adapter.a.size(0) != adapter.b.size(1))
    throw Error(ErrorClass::model, "an adapter of " + module_name(module) + " must be A [r, " +
                                       std::to_string(in) + "] and B [" + std::to_string(part.rows) +
                                       ", r] on this rank");
  part.adapter = std::move(adapter);
}

void Transformer::clear_adapters() {
  for (DecoderLayer& layer : state_->weights.layers)
    for (FusedLinear* linear : layer.linears())
      for (LinearPart& part : linear->parts) part.adapter.reset();
}

void Transformer::enable_adapters(bool enabled) { state_->adapters_enabled = enabled; }

}  // namespace efface
