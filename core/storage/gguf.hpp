// From a GGUF file to a folder that efface and transformers read.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>

namespace efface {

struct GgufImportOptions {
  at::ScalarType dtype = at::kFloat;  ///< of the weights written; fp32 keeps every de-quantised value exactly
};

/// Reads a Llama model (general.architecture = llama; tensors F32, Q4_1 or Q8_0) and writes config.json,
/// generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json and
/// special_tokens_map.json. llama.cpp's order of the rows of q and k is undone, and the head is tied when the
/// file has none of its own. The tokenizer is byte-level BPE with the pre-tokenizer that tokenizer.ggml.pre
/// names; only `smollm` is known, any other is refused. The chat template is ChatML without a system line of
/// its own. The folder appears whole or not at all. Throws Error(model) for a file that is damaged or not of
/// this kind, Error(storage) where the folder cannot be written or is there already.
void import_gguf(const std::filesystem::path& gguf, const std::filesystem::path& output_folder,
                 const GgufImportOptions& options = {});

}  // namespace efface
