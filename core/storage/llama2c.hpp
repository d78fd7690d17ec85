// From a model of llama2.c (https://github.com/karpathy/llama2.c) to a folder that efface and transformers
// read.
#pragma once

#include <filesystem>

namespace efface {

/// Reads llama2.c's first format (seven int32, then fp32 weights; the rotary tables in it are skipped) and
/// its tokenizer.bin, and writes config.json, generation_config.json, model.safetensors (fp32),
/// tokenizer.json and tokenizer_config.json. The order of the rows of q and k is changed to Hugging Face's;
/// the head is tied when the file's vocab_size is positive. The tokenizer's merges are those pairs of tokens
/// that make a token, best score first. The folder appears whole or not at all. Throws Error(model) for a
/// file that does not have exactly the size its header asks for.
void import_llama2c(const std::filesystem::path& model, const std::filesystem::path& tokenizer,
                    const std::filesystem::path& output_folder);

}  // namespace efface
