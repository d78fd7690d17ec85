// The tokenizer of a GGUF file as Hugging Face's files.
#pragma once

#include <filesystem>

#include "core/storage/gguf_file.hpp"

namespace efface {

/// The number of tokens; throws Error(model) for a tokenizer that is not known (model gpt2, pre smollm).
int64_t check_gguf_tokenizer(const GgufFile& gguf);

/// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`.
void write_gguf_tokenizer(const GgufFile& gguf, const std::filesystem::path& folder);

}  // namespace efface
