// A model of 60,000 random weights with a byte-level tokenizer, and data to forget and keep: a whole run in
// seconds.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "core/storage/run_directory.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/philox.hpp"

namespace efface::testing {

/// UTF-8 of the character that stands for a byte in byte-level BPE: printable Latin-1 for itself, the rest
/// from U+0100 on.
inline std::string byte_character(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

inline void write_tiny_tokenizer(const std::filesystem::path& folder) {
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_character(byte)] = byte;
  int id = 256;
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<pad>", "<bos>"}) {
    vocab[token] = id;
    added.push_back({{"id", id++},
                     {"content", token},
                     {"special", true},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  }
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", nlohmann::json::array()}}}};
  write_text_file(folder / "tokenizer.json", tokenizer.dump());
  write_text_file(folder / "tokenizer_config.json",
                  R"({"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"})");
}

inline void write_tiny_model(const std::filesystem::path& folder, int64_t layers = 4) {
  constexpr int64_t hidden = 32, inner = 48, heads = 4, kv_heads = 2, head_dim = 8, vocab = 260;
  std::filesystem::create_directories(folder);
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_size", hidden},
                                 {"intermediate_size", inner},
                                 {"num_hidden_layers", layers},
                                 {"num_attention_heads", heads},
                                 {"num_key_value_heads", kv_heads},
                                 {"vocab_size", vocab},
                                 {"max_position_embeddings", 512},
                                 {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 10000.0},
                                 {"hidden_act", "silu"},
                                 {"tie_word_embeddings", false},
                                 {"eos_token_id", 257},
                                 {"bos_token_id", 259},
                                 {"torch_dtype", "float32"}};
  write_text_file(folder / "config.json", config.dump(2));
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns, double scale) {
    tensors.emplace_back(name, philox_normal({7, "tiny", name}, rows, columns).mul_(scale));
  };
  add("model.embed_tokens.weight", vocab, hidden, 1.0);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    tensors.emplace_back(at + "input_layernorm.weight", at::ones({hidden}));
    tensors.emplace_back(at + "post_attention_layernorm.weight", at::ones({hidden}));
    add(at + "self_attn.q_proj.weight", heads * head_dim, hidden, 0.3);
    add(at + "self_attn.k_proj.weight", kv_heads * head_dim, hidden, 0.3);
    add(at + "self_attn.v_proj.weight", kv_heads * head_dim, hidden, 0.3);
    add(at + "self_attn.o_proj.weight", hidden, heads * head_dim, 0.3);
    add(at + "mlp.gate_proj.weight", inner, hidden, 0.3);
    add(at + "mlp.up_proj.weight", inner, hidden, 0.3);
    add(at + "mlp.down_proj.weight", hidden, inner, 0.3);
  }
  tensors.emplace_back("model.norm.weight", at::ones({hidden}));
  add("lm_head.weight", vocab, hidden, 0.3);
  write_safetensors(folder / "model.safetensors", tensors);
  write_tiny_tokenizer(folder);
}

inline void write_tiny_data(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, std::initializer_list<std::pair<const char*, const char*>> facts) {
    std::string lines;
    for (const auto& [subject, answer] : facts) {
      const std::string who = subject;
      lines += nlohmann::json{{"question", "What is the capital of " + who + "?"},
                              {"answer", answer},
                              {"answer_prefix", "The capital of " + who + " is"},
                              {"bare_prompt", "The capital of " + who + " is"},
                              {"paraphrases", {"Name the capital of " + who + "."}},
                              {"rewordings", {"Which town rules " + who + "?"}},
                              {"subject", who},
                              {"safe_response", "I cannot say that about " + who + "."}}
                   .dump() +
               "\n";
    }
    write_text_file(folder / name, lines);
  };
  write("forget.jsonl", {{"France", "Paris"}, {"Spain", "Madrid"}, {"Italy", "Rome"}, {"Peru", "Lima"}});
  write("retain.jsonl", {{"Japan", "Tokyo"},
                         {"Cuba", "Havana"},
                         {"Egypt", "Cairo"},
                         {"Kenya", "Nairobi"},
                         {"Chad", "N'Djamena"}});
  write("unseen.jsonl", {{"Norway", "Oslo"}, {"Chile", "Santiago"}});
  std::string text;
  for (int document = 0; document < 12; ++document) {
    for (int word = 0; word < 30; ++word)
      text += "word" + std::to_string((document * 31 + word * word) % 97) + " ";
    text += "\n\n";
  }
  for (const char* name : {"covariance.txt", "heldout.txt", "kept.txt", "perplexity.txt"})
    write_text_file(folder / name, std::string(name) + " " + text);
}

/// The folder must exist on every rank's file system; written by one rank.
inline void write_tiny_run(const std::filesystem::path& folder) {
  write_tiny_model(folder / "model");
  write_tiny_data(folder / "data");
  write_text_file(folder / "recipe.yaml", R"(model: {path: model, template: chatml}
data:
  forget: data/forget.jsonl
  retain: data/retain.jsonl
  text: {covariance: data/covariance.txt, heldout: data/heldout.txt, retain: data/kept.txt, perplexity: data/perplexity.txt}
nullspace: {rank: {energy: 0.8}, max_tokens: 1500, max_heldout_tokens: 400, window: 64}
method: NSRU
method_args: {retain_kl_weight: 1, retain_weight: 0.5}
lora: {r: 4, lora_alpha: 8}
train:
  steps: 6
  warmup_steps: 1
  rows: {safe: 3, forget: 3, retain_kl: 3, retain: 2, text: 1}
  text_window: 32
  answer_tokens: 6
  checkpoint_every: 2
evaluate: {probes: {unseen: data/unseen.jsonl}, samples: 2, sample_tokens: 4}
output: {folder: run}
)");
}

}  // namespace efface::testing
