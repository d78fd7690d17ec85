// Gemma 2 and the text models of Gemma 3: norms on both sides that multiply by 1 + weight, scaled embeddings,
// a scale of attention apart from head_dim, GELU, windows in some layers. Gemma 2 caps scores and logits
// softly; Gemma 3 normalises q and k, and its windowed layers have a RoPE of their own.
#include <cmath>

#include "core/model/families/family.hpp"

namespace efface {
namespace {

constexpr double kQueryScalar = 256;  // query_pre_attn_scalar where config.json does not name one
constexpr int kGlobalRope = 0, kLocalRope = 1;

void read_gemma(const ConfigFile& file, ModelConfig& config) {
  refuse_switches(file, {"mlp_bias", "use_bidirectional_attention"});
  read_attention_bias(file, config);
  config.attention_scale = 1 / std::sqrt(file.positive("query_pre_attn_scalar", kQueryScalar));
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
  config.activation = read_activation(file, "hidden_activation", Activation::gelu_tanh);
  config.output_norms = config.norms_add_one = true;
  config.logit_softcap = file.positive("final_logit_softcapping", 0);
}

}  // namespace

void read_gemma2(const ConfigFile& file, ModelConfig& config) {
  read_gemma(file, config);
  config.attention_softcap = file.positive("attn_logit_softcapping", 0);
  config.layer_kinds =
      read_layer_types(file, config.layers, read_window(file), [](int64_t layer) { return layer % 2 == 0; });
}

void read_gemma3(const ConfigFile& file, ModelConfig& config) {
  constexpr double kLocalTheta = 10000;
  read_gemma(file, config);
  // A cap of scores is in Gemma 3's config.json, but transformers does not apply it.
  if (file.has("attn_logit_softcapping")) file.fail("attn_logit_softcapping", "is not supported for Gemma 3");
  config.qk_norm = true;
  config.max_positions = file.size("max_position_embeddings");  // they include the factor of rope_scaling
  RopeConfig local;
  local.theta = file.positive("rope_local_base_freq", kLocalTheta);
  config.ropes.push_back(local);
  const int64_t pattern = file.size("sliding_window_pattern", file.size("_sliding_window_pattern", 6));
  config.layer_kinds = read_layer_types(file, config.layers, read_window(file),
                                        [&](int64_t layer) { return (layer + 1) % pattern != 0; });
  for (LayerKind& kind : config.layer_kinds) kind.rope = kind.window > 0 ? kLocalRope : kGlobalRope;
}

}  // namespace efface
