// What several families' config.json have in common.
#include <cmath>
#include <map>

#include "core/model/families/family.hpp"

namespace efface {
namespace {

RopeScaling scaling_named(const ConfigFile& section) {
  static const std::map<std::string, RopeScaling> names = {
      {"default", RopeScaling::none}, {"linear", RopeScaling::linear},     {"dynamic", RopeScaling::dynamic},
      {"yarn", RopeScaling::yarn},    {"longrope", RopeScaling::longrope}, {"su", RopeScaling::longrope},
      {"llama3", RopeScaling::llama3}};
  if (section.has("short_factor")) return RopeScaling::longrope;  // early Phi-3 files call it su or yarn
  const std::string key = section.has("rope_type") ? "rope_type" : "type";
  const std::string name = section.text(key, "default");
  const auto found = names.find(name);
  if (found == names.end())
    section.fail(key, "is \"" + name + "\", which is not supported",
                 "use a model with plain RoPE or linear, dynamic, yarn, longrope or llama3 scaling");
  return found->second;
}

/// mscale of YaRN: attention scores grow with the logarithm of the factor.
double yarn_mscale(double factor, double weight) {
  return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

void read_yarn(const ConfigFile& section, RopeConfig& rope) {
  rope.beta_fast = section.positive("beta_fast", rope.beta_fast);
  rope.beta_slow = section.positive("beta_slow", rope.beta_slow);
  rope.truncate = section.flag("truncate", rope.truncate);
  const bool weighted = section.has("mscale") && section.has("mscale_all_dim");
  const double by_factor = weighted ? yarn_mscale(rope.factor, section.positive("mscale")) /
                                          yarn_mscale(rope.factor, section.positive("mscale_all_dim"))
                                    : yarn_mscale(rope.factor, 1);
  rope.amplitude = section.positive("attention_factor", by_factor);
}

void read_longrope(const ConfigFile& file, const ConfigFile& section, int64_t head_dim, RopeConfig& rope) {
  const auto positions = file.size("max_position_embeddings");
  const auto original = file.size("original_max_position_embeddings",
                                  section.size("original_max_position_embeddings", positions));
  const double factor = original != positions ? static_cast<double>(positions) / static_cast<double>(original)
                                              : section.positive("factor", 1);
  const double by_factor =
      factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
  rope.original_positions = original;
  rope.amplitude = section.positive("attention_factor", by_factor);
  rope.short_factors = section.positives("short_factor", rope.rotary_dim(head_dim) / 2);
  rope.long_factors = section.positives("long_factor", rope.rotary_dim(head_dim) / 2);
}

void read_scaling(const ConfigFile& file, const ConfigFile& section, int64_t head_dim, RopeConfig& rope) {
  rope.scaling = scaling_named(section);
  if (rope.scaling == RopeScaling::none) return;
  if (rope.scaling == RopeScaling::longrope) return read_longrope(file, section, head_dim, rope);
  rope.factor = section.positive("factor");
  rope.original_positions = file.size("max_position_embeddings");
  if (rope.scaling == RopeScaling::yarn || rope.scaling == RopeScaling::llama3)
    rope.original_positions = section.size("original_max_position_embeddings", rope.original_positions);
  if (rope.scaling == RopeScaling::yarn) read_yarn(section, rope);
  if (rope.scaling == RopeScaling::llama3) {
    rope.low_frequency_factor = section.positive("low_freq_factor");
    rope.high_frequency_factor = section.positive("high_freq_factor");
  }
}

}  // namespace

RopeConfig read_rope(const ConfigFile& file, int64_t head_dim) {
  RopeConfig rope;
  rope.theta = file.positive("rope_theta", rope.theta);
  rope.partial = file.positive("partial_rotary_factor", rope.partial);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!file.has(key)) continue;
    const ConfigFile section = file.section(key);
    rope.theta = section.positive("rope_theta", rope.theta);
    rope.partial = section.positive("partial_rotary_factor", rope.partial);
    read_scaling(file, section, head_dim, rope);
  }
  const int64_t dim = rope.rotary_dim(head_dim);
  if (rope.partial > 1 || dim < 2 || dim % 2 != 0)
    file.fail(rope.partial == 1 ? "head_dim" : "partial_rotary_factor",
              "leaves " + std::to_string(dim) + " of " + std::to_string(head_dim) +
                  " features of a head to rotate, not a positive even number of them");
  return rope;
}

Activation read_activation(const ConfigFile& file, const std::string& key, Activation missing) {
  static const std::map<std::string, Activation> names = {{"silu", Activation::silu},
                                                          {"swish", Activation::silu},
                                                          {"gelu", Activation::gelu},
                                                          {"gelu_new", Activation::gelu_tanh},
                                                          {"gelu_pytorch_tanh", Activation::gelu_tanh}};
  if (!file.has(key)) return missing;
  const auto found = names.find(file.text(key, ""));
  if (found == names.end())
    file.fail(key, "is " + file.json()[key].dump() + ", not silu, gelu or gelu_pytorch_tanh");
  return found->second;
}

void refuse_switches(const ConfigFile& file, const std::vector<std::string>& keys) {
  for (const auto& key : keys)
    if (file.flag(key, false)) file.fail(key, "is true, which is not supported for this model_type");
}

void read_attention_bias(const ConfigFile& file, ModelConfig& config) {
  config.qkv_bias = config.o_bias = file.flag("attention_bias", false);
}

int64_t read_window(const ConfigFile& file) { return file.size("sliding_window", 0); }

std::vector<LayerKind> read_layer_types(const ConfigFile& file, int64_t layers, int64_t window,
                                        const std::function<bool(int64_t)>& slides) {
  const nlohmann::json types = file.has("layer_types") ? file.json()["layer_types"] : nlohmann::json();
  if (!types.is_null() && (!types.is_array() || static_cast<int64_t>(types.size()) != layers))
    file.fail("layer_types", "is not a list of " + std::to_string(layers) + " names");
  std::vector<LayerKind> kinds(static_cast<size_t>(layers));
  for (int64_t layer = 0; layer < layers; ++layer) {
    bool sliding = types.is_null() ? slides(layer) : types[layer] == "sliding_attention";
    if (!types.is_null() && !sliding && types[layer] != "full_attention")
      file.fail("layer_types", "holds " + types[layer].dump() + ", not sliding_attention or full_attention");
    if (sliding) kinds[layer].window = window;
  }
  return kinds;
}

}  // namespace efface
