#include "core/model/weights.hpp"

#include <algorithm>
#include <cmath>
#include <set>

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
    linear.parts.push_back({projection, rows, part_rows, {}, {}});
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

void check_names(const SafetensorsReader& reader, const std::vector<Weight>& weights,
                 const ModelConfig& config, const std::filesystem::path& folder) {
  std::set<std::string> expected;
  std::string problems;
  int count = 0;
  const auto report = [&](const std::string& problem) {
    if (++count <= 8) problems += (problems.empty() ? "" : "; ") + problem;
  };
  for (const Weight& weight : weights) {
    expected.insert(weight.name);
    if (!reader.contains(weight.name))
      report(weight.name + " is missing");
    else if (reader.shape(weight.name) != weight.global_shape)
      report(weight.name + " is " + shape_text(reader.shape(weight.name)) + ", not " +
             shape_text(weight.global_shape));
  }
  for (const std::string& name : reader.names())
    if (!expected.count(name) && !is_redundant(name, config)) report(name + " is not part of this model");
  if (count == 0) return;
  if (count > 8) problems += "; and " + std::to_string(count - 8) + " more";
  throw Error(ErrorClass::model, folder.string() + ": " + problems,
              "config.json and the tensors must belong together");
}

}  // namespace

FusedLinear& DecoderLayer::linear(Projection projection) {
  switch (input_of(projection)) {
    case Input::qkv:
      return qkv;
    case Input::o:
      return o;
    case Input::gate_up:
      return gate_up;
    case Input::down:
      return down;
  }
  return qkv;
}

DecoderWeights allocate_weights(const ModelConfig& config, const Mesh& mesh, at::ScalarType dtype) {
  const auto options = at::TensorOptions(mesh.device).dtype(dtype);
  const int64_t t = mesh.tensor_size(), hidden = config.hidden_size, head = config.head_dim;
  const int64_t q = config.heads / t * head, kv = config.kv_heads / t * head,
                inner = config.intermediate_size / t;
  DecoderWeights weights;
  weights.embedding = allocate_vocab(config, mesh, options);
  weights.head = config.tie_word_embeddings ? weights.embedding : allocate_vocab(config, mesh, options);
  weights.final_norm = at::empty({hidden}, options);
  for (int64_t i = 0; i < config.layers; ++i) {
    DecoderLayer layer;
    layer.dtype = dtype;
    layer.input_norm = at::empty({hidden}, options);
    layer.post_attention_norm = at::empty({hidden}, options);
    layer.qkv =
        allocate_linear({{Projection::q, q}, {Projection::k, kv}, {Projection::v, kv}}, hidden, options);
    layer.o = allocate_linear({{Projection::o, hidden}}, q, options);
    layer.gate_up = allocate_linear({{Projection::gate, inner}, {Projection::up, inner}}, hidden, options);
    layer.down = allocate_linear({{Projection::down, hidden}}, inner, options);
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

std::vector<Weight> list_weights(const ModelConfig& config, DecoderWeights& weights) {
  const int64_t hidden = config.hidden_size;
  std::vector<Weight> list;
  list.push_back(
      {"model.embed_tokens.weight", {config.vocab_size, hidden}, Sharding::rows, weights.embedding.weight});
  for (int i = 0; i < static_cast<int>(weights.layers.size()); ++i) {
    DecoderLayer& layer = weights.layers[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto add_norm = [&](const std::string& name, const at::Tensor& local) {
      list.push_back({prefix + name + ".weight", {hidden}, Sharding::replicated, local});
    };
    const auto add_linear = [&](Projection projection, int64_t out, int64_t in) {
      FusedLinear& linear = layer.linear(projection);
      list.push_back({module_name({i, projection}) + ".weight",
                      {out, in},
                      is_row_parallel(projection) ? Sharding::columns : Sharding::rows,
                      linear.local(linear.part(projection))});
    };
    add_norm("input_layernorm", layer.input_norm);
    add_linear(Projection::q, config.heads * config.head_dim, hidden);
    add_linear(Projection::k, config.kv_heads * config.head_dim, hidden);
    add_linear(Projection::v, config.kv_heads * config.head_dim, hidden);
    add_linear(Projection::o, hidden, config.heads * config.head_dim);
    add_norm("post_attention_layernorm", layer.post_attention_norm);
    add_linear(Projection::gate, config.intermediate_size, hidden);
    add_linear(Projection::up, config.intermediate_size, hidden);
    add_linear(Projection::down, hidden, config.intermediate_size);
  }
  list.push_back({"model.norm.weight", {hidden}, Sharding::replicated, weights.final_norm});
  if (!config.tie_word_embeddings)
    list.push_back({"lm_head.weight", {config.vocab_size, hidden}, Sharding::rows, weights.head.weight});
  return list;
}

std::pair<int64_t, int64_t> shard_range(const Weight& weight, const Mesh& mesh) {
  if (weight.sharding == Sharding::replicated) return {0, weight.global_shape[0]};
  return even_range(weight.global_shape[weight.sharding == Sharding::rows ? 0 : 1], mesh.tensor_rank(),
                    mesh.tensor_size());
}

std::vector<std::string> load_weights(const std::filesystem::path& folder, const std::vector<Weight>& weights,
                                      const ModelConfig& config, const Mesh& mesh) {
  const SafetensorsReader reader = SafetensorsReader::open_folder(folder);
  check_names(reader, weights, config, folder);
  for (const Weight& weight : weights) {
    const auto [begin, end] = shard_range(weight, mesh);
    if (weight.sharding == Sharding::replicated)
      reader.read_into(weight.local, weight.name);
    else
      reader.read_slice_into(weight.local, weight.name, weight.sharding == Sharding::rows ? 0 : 1, begin,
                             end);
  }
  return reader.names();
}

void randomise_weights(const std::vector<Weight>& weights, const Mesh& mesh, uint64_t seed) {
  for (Weight weight : weights) {
    if (weight.global_shape.size() == 1) {
      weight.local.fill_(1);
      continue;
    }
    const auto [begin, end] = shard_range(weight, mesh);
    const bool rows = weight.sharding == Sharding::rows;
    const int64_t out = weight.global_shape[0], in = weight.global_shape[1];
    const at::Tensor values = philox_normal({seed, "weights", weight.name}, rows ? end - begin : out,
                                            rows ? in : end - begin, rows ? begin : 0, rows ? 0 : begin, in);
    weight.local.copy_(values / std::sqrt(static_cast<double>(in)));
  }
}

}  // namespace efface
