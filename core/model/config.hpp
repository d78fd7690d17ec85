// What config.json of a Llama-like model says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace efface {

struct ModelConfig {
  std::string model_type = "llama";
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;  ///< max_position_embeddings; 0: not known, not checked
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;
  std::vector<int64_t> eos_token_ids;
  std::string dtype = "float32";  ///< torch_dtype / dtype of the file
  nlohmann::json raw;             ///< written back unchanged on export
};

/// Throws Error(model) naming file and key for a missing, mistyped or impossible value, and for a switch this
/// version does not know (rope_scaling, attention_bias, ...): a model is never computed wrongly in silence.
ModelConfig read_model_config(const std::filesystem::path& folder);

/// Throws Error(usage) when the size does not divide heads, kv_heads and intermediate size, naming the sizes
/// that would do. The vocabulary need not divide: its rows are dealt out as evenly as possible (even_range).
void check_tensor_parallel(const ModelConfig& config, int tensor_size);

/// Throws Error(data) when `what` ("row 3") has more tokens than the model has positions: rotary embeddings
/// go on beyond them, but what comes out there the model was never trained to give.
void check_positions(const ModelConfig& config, const std::string& what, int64_t tokens);

}  // namespace efface
