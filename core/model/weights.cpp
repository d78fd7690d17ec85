#include "core/model/weights.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/model/tensors.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

FusedLinear allocate_linear(std::vector<std::pair<Projection, int64_t>> parts, int64_t in,
                            const at::TensorOptions& options) {
  FusedLinear linear;
  int64_t rows = 0;
  for (const auto& [projection, part_rows] : parts) {
    linear.parts.push_back({projection, rows, part_rows});
    rows += part_rows;
  }
  linear.weight = at::empty({in, rows}, options).t();
  return linear;
}

VocabShard allocate_vocab(const ModelConfig& config, const Mesh& mesh, const at::TensorOptions& options) {
  VocabShard shard;
  std::tie(shard.begin, shard.end) = even_range(config.vocab_size, mesh.tensor_rank(), mesh.tensor_size());
  shard.vocab = config.vocab_size;
  shard.group = mesh.tensor;
  shard.weight = at::empty({shard.end - shard.begin, config.hidden_size}, options);
  return shard;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Tensors that some writers leave in the file and that say nothing new.
bool is_redundant(const std::string& name, const ModelConfig& config) {
  return ends_with(name, "rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
}

/// Shapes of the file's tensors: parts of one are rows on top of each other.
std::map<std::string, std::vector<int64_t>> stored_shapes(const std::vector<Weight>& weights) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const Weight& weight : weights) {
    const auto [shape, added] = shapes.emplace(weight.stored_name, weight.global_shape);
    if (!added) shape->second[0] += weight.global_shape[0];
  }
  return shapes;
}

void check_names(const SafetensorsReader& reader, const std::vector<Weight>& weights,
                 const ModelConfig& config, const std::filesystem::path& folder) {
  const auto expected = stored_shapes(weights);
  std::string problems;
  int count = 0;
  const auto report = [&](const std::string& problem) {
    if (++count <= 8) problems += (problems.empty() ? "" : "; ") + problem;
  };
  for (const auto& [name, shape] : expected) {
    if (!reader.contains(name))
      report(name + " is missing");
    else if (reader.shape(name) != shape)
      report(name + " is " + shape_text(reader.shape(name)) + ", not " + shape_text(shape));
  }
  for (const std::string& name : reader.names())
    if (!expected.count(name) && !is_redundant(name, config)) report(name + " is not part of this model");
  if (count == 0) return;
  if (count > 8) problems += "; and " + std::to_string(count - 8) + " more";
  throw Error(ErrorClass::model, folder.string() + ": " + problems,
              "config.json and the tensors must belong together");
}

/// Which key-value heads a tensor rank holds: its share, or one that it has in common with its neighbours.
struct KeyValueShare {
  int64_t begin = 0, heads = 0;
  int64_t ranks = 1;  ///< that hold the same

  KeyValueShare(const ModelConfig& config, const Mesh& mesh) {
    const int64_t t = mesh.tensor_size();
    ranks = std::max<int64_t>(1, t / config.kv_heads);
    heads = std::max<int64_t>(1, config.kv_heads / t);
    begin = mesh.tensor_rank() / ranks * heads;
  }
};

FeedForward allocate_feed_forward(const ModelConfig& config, int64_t inner,
                                  const at::TensorOptions& options) {
  FeedForward result;
  result.gate_up =
      allocate_linear({{Projection::gate, inner}, {Projection::up, inner}}, config.hidden_size, options);
  result.down = allocate_linear({{Projection::down, config.hidden_size}}, inner, options);
  if (config.mlp_bias) {
    result.gate_up.bias = at::empty({2 * inner}, options);
    result.down.bias = at::empty({config.hidden_size}, options);
  }
  return result;
}

}  // namespace

FusedLinear& DecoderLayer::linear(const ModuleId& module) {
  const bool in_mixture = module.expert >= 0 && module.expert < static_cast<int>(experts.size());
  FeedForward& block = in_mixture ? experts[module.expert] : feed_forward;
  const bool in_block =
      input_of(module.projection) == Input::gate_up || module.projection == Projection::down;
  if (in_block ? block.down.parts.empty() || in_mixture != (module.expert != kDense)
               : module.expert != kDense)
    throw Error(ErrorClass::model, "the model has no linear layer " + module_name(module),
                experts.empty() ? "its feed-forward is dense" : "its feed-forward is a mixture of experts");
  switch (input_of(module.projection)) {
    case Input::qkv:
      return qkv;
    case Input::o:
      return o;
    case Input::gate_up:
      return block.gate_up;
    case Input::down:
      return block.down;
  }
  return qkv;
}

std::vector<FusedLinear*> DecoderLayer::linears() {
  std::vector<FusedLinear*> all = {&qkv, &o};
  if (experts.empty()) all.insert(all.end(), {&feed_forward.gate_up, &feed_forward.down});
  for (FeedForward& expert : experts) all.insert(all.end(), {&expert.gate_up, &expert.down});
  return all;
}

std::vector<at::Tensor*> DecoderLayer::replicated() {
  std::vector<at::Tensor*> all;
  for (at::Tensor* tensor : {&attention_norm, &feed_forward_norm, &attention_output_norm,
                             &feed_forward_output_norm, &q_norm, &k_norm, &router})
    if (tensor->defined()) all.push_back(tensor);
  return all;
}

DecoderWeights allocate_weights(const ModelConfig& config, const Mesh& mesh, at::ScalarType dtype) {
  const auto options = at::TensorOptions(mesh.device).dtype(dtype);
  const int64_t t = mesh.tensor_size(), hidden = config.hidden_size;
  const KeyValueShare share(config, mesh);
  const int64_t q = config.heads / t * config.head_dim, kv = share.heads * config.head_dim;
  const auto norm = [&](int64_t size, bool there = true) {
    return there ? at::empty({size}, options) : at::Tensor();
  };
  Communicator replicas;
  if (share.ranks > 1)
    replicas = mesh.tensor.split(static_cast<int>(mesh.tensor_rank() / share.ranks), mesh.tensor_rank());
  DecoderWeights weights;
  weights.embedding = allocate_vocab(config, mesh, options);
  weights.head = config.tie_word_embeddings ? weights.embedding : allocate_vocab(config, mesh, options);
  weights.head.softcap = config.logit_softcap;
  weights.final_norm = norm(hidden);
  for (int i = 0; i < config.layers; ++i) {
    DecoderLayer layer;
    layer.dtype = dtype;
    layer.attention_norm = norm(hidden);
    layer.feed_forward_norm = norm(hidden);
    layer.attention_output_norm = norm(hidden, config.output_norms);
    layer.feed_forward_output_norm = norm(hidden, config.output_norms);
    layer.q_norm = norm(config.head_dim, config.qk_norm);
    layer.k_norm = norm(config.head_dim, config.qk_norm);
    layer.qkv =
        allocate_linear({{Projection::q, q}, {Projection::k, kv}, {Projection::v, kv}}, hidden, options);
    layer.qkv.part(Projection::k).replicas = layer.qkv.part(Projection::v).replicas = replicas;
    if (config.qkv_bias) layer.qkv.bias = at::empty({q + 2 * kv}, options);
    layer.o = allocate_linear({{Projection::o, hidden}}, q, options);
    if (config.o_bias) layer.o.bias = at::empty({hidden}, options);
    const int64_t experts = config.kind(i).experts;
    if (experts == 0)
      layer.feed_forward = allocate_feed_forward(config, config.intermediate_size / t, options);
    else
      layer.router = at::empty({experts, hidden}, options);
    for (int64_t expert = 0; expert < experts; ++expert)
      layer.experts.push_back(allocate_feed_forward(config, config.expert_size / t, options));
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

std::vector<Weight> list_weights(const ModelConfig& config, const Mesh& mesh, DecoderWeights& weights) {
  const int64_t hidden = config.hidden_size;
  const KeyValueShare share(config, mesh);
  std::vector<Weight> list;
  const auto add = [&](Weight weight) {
    if (weight.stored_name.empty()) weight.stored_name = weight.name;
    list.push_back(std::move(weight));
  };
  const auto add_replicated = [&](const std::string& name, const at::Tensor& local) {
    if (local.defined()) add({.name = name, .global_shape = local.sizes().vec(), .local = local});
  };
  const auto add_vocabulary = [&](const std::string& name, const VocabShard& shard) {
    add({name, {config.vocab_size, hidden}, Sharding::rows, shard.weight, shard.begin});
  };
  const auto add_linear = [&](const ModuleId& module) {
    FusedLinear& linear = weights.layers[module.layer].linear(module);
    const LinearPart& part = linear.part(module.projection);
    const bool row_parallel = is_row_parallel(module.projection);
    const int64_t out = output_width(config, module), in = input_width(input_of(module), config);
    const bool key_value = module.projection == Projection::k || module.projection == Projection::v;
    Weight weight;
    weight.name = module_name(module) + ".weight";
    weight.global_shape = {out, in};
    weight.sharding = row_parallel ? Sharding::columns : Sharding::rows;
    weight.local = linear.local(part);
    weight.begin =
        key_value ? share.begin * config.head_dim : mesh.tensor_rank() * weight.local.size(weight.dim());
    weight.primary = !key_value || mesh.tensor_rank() % share.ranks == 0;
    const StoredTensor stored = stored_weight(config, module);
    weight.stored_name = stored.name;
    weight.stored_row = stored.row;
    add(weight);
    if (!linear.bias.defined()) return;
    const std::string name = module_name(module) + ".bias";
    if (row_parallel)
      add_replicated(name, linear.bias);
    else
      add({name,
           {out},
           Sharding::rows,
           linear.bias.narrow(0, part.offset, part.rows),
           weight.begin,
           weight.primary});
  };
  add_vocabulary("model.embed_tokens.weight", weights.embedding);
  for (int i = 0; i < static_cast<int>(weights.layers.size()); ++i) {
    const DecoderLayer& layer = weights.layers[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    add_replicated(prefix + "input_layernorm.weight", layer.attention_norm);
    for (const Projection projection : {Projection::q, Projection::k, Projection::v, Projection::o})
      add_linear({i, projection});
    add_replicated(prefix + "self_attn.q_norm.weight", layer.q_norm);
    add_replicated(prefix + "self_attn.k_norm.weight", layer.k_norm);
    // Where what attention gives is normalised too, that norm has the name of the other's.
    add_replicated(prefix + "post_attention_layernorm.weight", layer.attention_output_norm);
    add_replicated(
        prefix + (config.output_norms ? "pre_feedforward" : "post_attention") + "_layernorm.weight",
        layer.feed_forward_norm);
    add_replicated(prefix + config.layout.mixture + ".gate.weight", layer.router);
    const int experts = static_cast<int>(layer.experts.size());
    for (int expert = experts == 0 ? kDense : 0; expert < experts; ++expert) {
      for (const Projection projection : {Projection::gate, Projection::up, Projection::down})
        add_linear({i, projection, expert});
    }
    add_replicated(prefix + "post_feedforward_layernorm.weight", layer.feed_forward_output_norm);
  }
  add_replicated("model.norm.weight", weights.final_norm);
  if (!config.tie_word_embeddings) add_vocabulary("lm_head.weight", weights.head);
  return list;
}

std::vector<std::string> load_weights(const std::filesystem::path& folder, const std::vector<Weight>& weights,
                                      const ModelConfig& config) {
  const SafetensorsReader reader = SafetensorsReader::open_folder(folder);
  check_names(reader, weights, config, folder);
  for (const Weight& weight : weights) {
    const int64_t begin = weight.begin + (weight.dim() == 0 ? weight.stored_row : 0);
    reader.read_slice_into(weight.local, weight.stored_name, weight.dim(), begin,
                           begin + weight.local.size(weight.dim()));
  }
  return reader.names();
}

void randomise_weights(const std::vector<Weight>& weights, const ModelConfig& config, uint64_t seed) {
  constexpr double kBias = 0.1;
  for (Weight weight : weights) {
    const bool vector = weight.global_shape.size() == 1;
    if (vector && !ends_with(weight.name, ".bias")) {
      weight.local.fill_(config.norms_add_one ? 0 : 1);
      continue;
    }
    const int64_t in = vector ? 1 : weight.global_shape[1];
    const bool rows = weight.dim() == 0;
    const at::Tensor values =
        philox_normal({seed, "weights", weight.name}, weight.local.size(0), vector ? 1 : weight.local.size(1),
                      rows ? weight.begin : 0, rows ? 0 : weight.begin, in);
    weight.local.copy_(values.view(weight.local.sizes()) *
                       (vector ? kBias : 1 / std::sqrt(static_cast<double>(in))));
  }
}

}  // namespace efface
