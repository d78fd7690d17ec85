// The model families: what each one's config.json means for the one transformer. A family is a function from
// config.json to ModelConfig; what it needs of common readers is here too.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/model/config.hpp"
#include "core/model/families/config_file.hpp"

namespace efface {

struct Family {
  const char* model_type;
  bool tied;  ///< what an absent tie_word_embeddings means
  /// Called with the sizes, norms, RoPE and ties that all families write alike already read.
  void (*read)(const ConfigFile& file, ModelConfig& config);
};

void read_llama(const ConfigFile& file, ModelConfig& config);
void read_smollm3(const ConfigFile& file, ModelConfig& config);
void read_mistral(const ConfigFile& file, ModelConfig& config);
void read_mixtral(const ConfigFile& file, ModelConfig& config);
void read_qwen2(const ConfigFile& file, ModelConfig& config);
void read_qwen3(const ConfigFile& file, ModelConfig& config);
void read_qwen3_moe(const ConfigFile& file, ModelConfig& config);
void read_phi3(const ConfigFile& file, ModelConfig& config);
void read_gemma2(const ConfigFile& file, ModelConfig& config);
void read_gemma3(const ConfigFile& file, ModelConfig& config);

/// rope_theta and rope_scaling, which transformers 5 writes as rope_parameters; and partial_rotary_factor.
RopeConfig read_rope(const ConfigFile& file, int64_t head_dim);
Activation read_activation(const ConfigFile& file, const std::string& key, Activation missing);
/// Throws for switches that are on and that the family does not have.
void refuse_switches(const ConfigFile& file, const std::vector<std::string>& keys);
/// attention_bias: q, k, v and o.
void read_attention_bias(const ConfigFile& file, ModelConfig& config);
/// sliding_window; 0 where there is none. An absent key is none.
int64_t read_window(const ConfigFile& file);
/// A LayerKind a layer: `window` where layer_types says sliding_attention or, without that key, where
/// `slides(layer)`.
std::vector<LayerKind> read_layer_types(const ConfigFile& file, int64_t layers, int64_t window,
                                        const std::function<bool(int64_t)>& slides);

}  // namespace efface
