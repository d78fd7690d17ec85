// What the importers share: the Hugging Face form of a Llama model.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace efface {

struct LlamaFolder {
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, layers = 0;
  int64_t heads = 0, key_value_heads = 0, head_size = 0, context = 0;
  double rope_theta = 10000, norm_epsilon = 1e-5;
  bool tied = false;  // the head is the embedding
  std::optional<int64_t> bos, eos, pad;
  at::ScalarType dtype = at::kFloat;
};

/// Names and shapes of the model's tensors, in the order they are written: model.embed_tokens.weight [vocab,
/// hidden], model.layers.N.*, model.norm.weight, and lm_head.weight unless tied.
std::vector<std::pair<std::string, std::vector<int64_t>>> llama_tensors(const LlamaFolder& model);

/// Writes config.json, generation_config.json and model.safetensors into `folder`, holding one tensor at a
/// time. `weight` gives the tensor of a name, in any floating dtype.
void write_llama_folder(const std::filesystem::path& folder, const LlamaFolder& model,
                        const std::function<at::Tensor(const std::string&)>& weight);

/// Rows of a query or key weight [heads * size, in], turned from rotary pairs (2i, 2i+1), as Meta, llama.cpp
/// and llama2.c lay them out, to halves (i, i + size/2), as Hugging Face does.
at::Tensor halves_from_pairs(const at::Tensor& weight, int64_t heads);

}  // namespace efface
