// From a GGUF file to a folder that efface and transformers read.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>

#include "core/storage/gguf_tokenizer.hpp"

namespace efface {

struct GgufImportOptions {
  at::ScalarType dtype = at::kFloat;  ///< of the weights written; fp32 keeps every de-quantised value exactly
  GgufChatTemplate chat_template = GgufChatTemplate::own;
};

/// Reads a Llama model (general.architecture = llama; tensor types of gguf_blocks.hpp) and writes
/// config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json and
/// special_tokens_map.json. llama.cpp's order of the rows of q and k is undone, and the head is tied when the
/// file has none of its own. Tokenizers: see gguf_tokenizer.hpp. The folder appears whole or not at all.
/// Throws Error(model) for a file that is damaged or not of this kind, Error(storage) where the folder cannot
/// be written or is there already.
void import_gguf(const std::filesystem::path& gguf, const std::filesystem::path& output_folder,
                 const GgufImportOptions& options = {});

}  // namespace efface
