// GGUF files for tests, honest ones and ones that lie.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace efface::testing {

template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string raw_text(const std::string& text) { return raw<uint64_t>(text.size()) + text; }

struct GgufBuilder {
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;  // innermost first, as in the file
    uint32_t type = 0;
    std::string bytes;
    std::optional<uint64_t> claimed_offset;
  };
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> claimed_tensors, claimed_keys;
  std::vector<std::pair<std::string, std::string>> keys;  // name, then type and value as in the file
  std::vector<Tensor> tensors;

  void set_raw(const std::string& name, const std::string& value) {
    for (auto& [key, old] : keys)
      if (key == name) {
        old = value;
        return;
      }
    keys.emplace_back(name, value);
  }
  void set(const std::string& name, uint32_t value) { set_raw(name, raw<uint32_t>(4) + raw(value)); }
  void set(const std::string& name, float value) { set_raw(name, raw<uint32_t>(6) + raw(value)); }
  void set(const std::string& name, bool value) { set_raw(name, raw<uint32_t>(7) + raw<uint8_t>(value)); }
  void set(const std::string& name, const char* value) { set_raw(name, raw<uint32_t>(8) + raw_text(value)); }
  void set(const std::string& name, const std::vector<std::string>& values) {
    std::string bytes = raw<uint32_t>(9) + raw<uint32_t>(8) + raw<uint64_t>(values.size());
    for (const auto& value : values) bytes += raw_text(value);
    set_raw(name, bytes);
  }
  void set(const std::string& name, const std::vector<int32_t>& values) {
    std::string bytes = raw<uint32_t>(9) + raw<uint32_t>(5) + raw<uint64_t>(values.size());
    for (const int32_t value : values) bytes += raw(value);
    set_raw(name, bytes);
  }
  void remove(const std::string& name) {
    std::erase_if(keys, [&](const auto& key) { return key.first == name; });
  }
  Tensor& tensor(const std::string& name) {
    for (Tensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    return tensors.emplace_back(Tensor{name, {}, 0, "", {}});
  }
  void set_fp32(const std::string& name, std::vector<uint64_t> dimensions, const std::vector<float>& values) {
    Tensor& made = tensor(name);
    made.dimensions = std::move(dimensions);
    made.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }

  std::string table() const {
    std::string file = magic + raw(version) + raw<uint64_t>(claimed_tensors.value_or(tensors.size())) +
                       raw<uint64_t>(claimed_keys.value_or(keys.size()));
    for (const auto& [key, value] : keys) file += raw_text(key) + value;
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors) {
      file += raw_text(tensor.name) + raw<uint32_t>(tensor.dimensions.size());
      for (const uint64_t size : tensor.dimensions) file += raw(size);
      file += raw(tensor.type) + raw(tensor.claimed_offset.value_or(offset));
      offset += (tensor.bytes.size() + 31) / 32 * 32;
    }
    return file;
  }
  std::string build() const {
    std::string file = table();
    for (const Tensor& tensor : tensors) {
      file.resize((file.size() + 31) / 32 * 32, '\0');
      file += tensor.bytes;
    }
    return file;
  }
};

/// A whole Llama of one layer: hidden 32, 2 heads of 16, 1 key-value head, inner 48, 8 tokens. Element i of
/// every tensor is i / 1024, so that rows can be told apart.
inline GgufBuilder tiny_llama() {
  GgufBuilder gguf;
  gguf.set("general.architecture", "llama");
  gguf.set("llama.block_count", 1u);
  gguf.set("llama.context_length", 64u);
  gguf.set("llama.embedding_length", 32u);
  gguf.set("llama.feed_forward_length", 48u);
  gguf.set("llama.attention.head_count", 2u);
  gguf.set("llama.attention.head_count_kv", 1u);
  gguf.set("llama.rope.freq_base", 10000.0f);
  gguf.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  gguf.set("tokenizer.ggml.model", "gpt2");
  gguf.set("tokenizer.ggml.pre", "smollm");
  gguf.set("tokenizer.ggml.tokens", std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                                             "a", "b", "ab", "\xC4\xA0", "abb"});
  gguf.set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 3, 3, 1, 1, 1, 1, 1});
  gguf.set("tokenizer.ggml.merges", std::vector<std::string>{"a b", "ab b"});
  gguf.set("tokenizer.ggml.bos_token_id", 1u);
  gguf.set("tokenizer.ggml.eos_token_id", 2u);
  gguf.set("tokenizer.ggml.padding_token_id", 2u);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dimensions) {
    uint64_t elements = 1;
    for (const uint64_t size : dimensions) elements *= size;
    std::vector<float> values(elements);
    for (uint64_t i = 0; i < elements; ++i) values[i] = static_cast<float>(i) / 1024;
    gguf.set_fp32(name, std::move(dimensions), values);
  };
  add("token_embd.weight", {32, 8});
  add("output_norm.weight", {32});
  add("blk.0.attn_norm.weight", {32});
  add("blk.0.attn_q.weight", {32, 32});
  add("blk.0.attn_k.weight", {32, 16});
  add("blk.0.attn_v.weight", {32, 16});
  add("blk.0.attn_output.weight", {32, 32});
  add("blk.0.ffn_norm.weight", {32});
  add("blk.0.ffn_gate.weight", {32, 48});
  add("blk.0.ffn_up.weight", {32, 48});
  add("blk.0.ffn_down.weight", {48, 32});
  return gguf;
}

}  // namespace efface::testing
