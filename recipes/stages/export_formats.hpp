// The two forms in which others read a result.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>

#include "core/text/tokenizer.hpp"
#include "recipes/stages/model_update.hpp"

namespace efface {

struct HuggingFaceExport {
  int64_t tensors = 0, changed = 0;
};

/// A Hugging Face folder: every untouched tensor with the bytes of the source, W0 + dW in the file's dtype
/// or, when `fp32`, in fp32, which config.json then names; all other files of the source as they are;
/// `model_card` as README.md. One process; the folder appears whole or not at all, an older one is replaced.
HuggingFaceExport export_huggingface(const std::filesystem::path& source, const std::filesystem::path& target,
                                     const ModelUpdate& update, bool fp32, const std::string& model_card);

/// A PEFT adapter (adapter_config.json, adapter_model.safetensors). A~ = A P is stored. A result that is not
/// low-rank is not exported: use the Hugging Face folder.
void export_peft(const std::filesystem::path& target, const std::filesystem::path& base_model,
                 const ModelUpdate& update, double lora_alpha, const std::string& model_card);

}  // namespace efface
