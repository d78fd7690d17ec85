// The tokenizer of a GGUF file as Hugging Face's files.
#pragma once

#include <filesystem>

#include "core/storage/gguf_file.hpp"

namespace efface {

/// Which chat template the folder gets: the file's own (none where it has none), or ChatML without a system
/// line of its own.
enum class GgufChatTemplate { own, chatml };

/// The number of tokens; throws Error(model) for a tokenizer that is not known: byte-level BPE
/// (tokenizer.ggml.model gpt2) whose tokenizer.ggml.pre is gpt-2, smollm, llama-bpe or qwen2, and
/// SentencePiece's BPE (llama).
int64_t check_gguf_tokenizer(const GgufFile& gguf);

/// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`.
void write_gguf_tokenizer(const GgufFile& gguf, const std::filesystem::path& folder,
                          GgufChatTemplate chat_template = GgufChatTemplate::own);

}  // namespace efface
