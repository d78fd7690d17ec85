// A tokenizer of single characters and a random model over it: greedy ids can be written as text and read
// back.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/model/transformer.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {

/// Lower and upper case, digits, some punctuation, space and line break; "<|end|>" is special.
/// `letter_merges`: " A" .. " D" are tokens of their own.
inline Tokenizer tiny_tokenizer(bool letter_merges = false) {
  nlohmann::json vocabulary = nlohmann::json::object(), merges = nlohmann::json::array();
  const std::string characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:()'?\n";
  for (char c : characters) vocabulary[std::string(1, c)] = vocabulary.size();
  if (letter_merges)
    for (const char* letter : {"A", "B", "C", "D"}) {
      vocabulary[std::string(" ") + letter] = vocabulary.size();
      merges.push_back({" ", letter});
    }
  const size_t end = vocabulary.size();
  nlohmann::json tokenizer = {
      {"added_tokens", {{{"id", end}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}}}},
      {"decoder", {{"type", "Fuse"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "tokenizer.json") << tokenizer.dump();
  return Tokenizer::load(folder.path());
}

inline ModelConfig tiny_config(const Tokenizer& tokenizer, int64_t positions = 512) {
  ModelConfig config;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.layers = 2;
  config.vocab_size = tokenizer.vocab_size();
  config.max_positions = positions;
  return config;
}

/// All ranks are data ranks, or (`tensor`) one tensor group.
inline Mesh world_mesh(bool tensor = false) {
  const int size = world().size();
  return make_mesh(world(), tensor ? size : 1, tensor ? 1 : size);
}

/// log p of a row's labels from the whole logit matrix of that row alone.
inline std::vector<double> label_log_probabilities(const Transformer& model, const TokenRow& row) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model.logits(model.forward(make_batch({row}))).to(at::kDouble);
  const at::Tensor log_p = logits.log_softmax(1);
  std::vector<double> result;
  for (auto p = row.prompt_length; p < static_cast<int64_t>(row.ids.size()); ++p)
    result.push_back(log_p[p - 1][row.ids[p]].item<double>());
  return result;
}

inline double sum(const std::vector<double>& values) {
  double total = 0;
  for (double value : values) total += value;
  return total;
}

}  // namespace efface::testing
