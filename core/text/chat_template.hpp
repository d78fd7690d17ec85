// From a conversation to the exact text the model was trained on, and which part of it is the assistant's.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/text/ragged_batch.hpp"
#include "core/text/tokenizer.hpp"

namespace efface {

struct ChatMessage {
  std::string role;  ///< system, user, assistant
  std::string content;
};

class ChatTemplate {
 public:
  /// Recognised by the text of chat_template in tokenizer_config.json, or of chat_template.jinja, in the
  /// folder; "none" where the folder has neither. Throws Error(model) for an unknown one, saying how to name
  /// one in the recipe (`model.template`).
  static ChatTemplate detect(const std::filesystem::path& folder);
  /// The same from the Jinja text itself; `source` is named in the error.
  static ChatTemplate recognise(const std::string& jinja, const std::string& source);
  /// One of names(); Error(usage) otherwise.
  ///   chatml          <|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n
  ///   chatml-smollm2, chatml-qwen2, chatml-qwen2.5   the same after that model's default system line
  ///   chatml-qwen3    chatml, the last answer after an empty <think> block (thinking switched off)
  ///   llama2          <s>[INST] {q} [/INST]{a}</s>          mistral   the same, <s> only once
  ///   llama3          headers in <|start_header_id|>        llama3.1  the same after its dated system block
  ///   zephyr          <|user|>\n{q}</s>\n<|assistant|>\n
  ///   phi             Question: {q}\nAnswer: {a}            none      the texts as they are
  static ChatTemplate named(const std::string& name);
  static std::vector<std::string> names();

  /// The same with `line` as system message wherever a conversation brings none (forms with system turns).
  ChatTemplate with_system(const std::string& line) const;

  const std::string& name() const { return name_; }
  /// The text, special tokens written out. generation_prompt: ends where the assistant begins to speak.
  std::string render(const std::vector<ChatMessage>& messages, bool generation_prompt) const;
  /// What ends an assistant's turn ("<|im_end|>"); empty for none. It is part of a full answer's labels.
  const std::string& turn_end() const { return turn_end_; }
  /// What stands between render(..., true) and the answer and belongs to the answer's tokens (phi: a space).
  const std::string& answer_space() const { return answer_space_; }

 private:
  std::string render_turns(const std::vector<ChatMessage>& messages, bool generation_prompt) const;
  std::string render_inst(const std::vector<ChatMessage>& messages) const;
  std::string render_question(const std::vector<ChatMessage>& messages, bool generation_prompt) const;

  std::string name_, turn_end_, answer_space_;
  std::string begin_;                          // once, before everything
  std::string role_begin_, role_end_, close_;  // a turn: role_begin role role_end content close
  std::string default_system_;                 // used when the conversation brings none
  std::string system_prefix_;                  // before the system's text, and a system turn always
  std::string answer_begin_;                   // before the last answer's text
  bool trim_ = false;
};

/// Question and answer as one row: prompt (question, then `answer_prefix`, the assistant's sentence begun)
/// without labels, then `answer` with labels, then the end of the turn when `end_turn`.
/// The answer is tokenised on its own after the prompt, so that its ids do not depend on the question.
/// After a prefix, answer joins as in continuation_row.
TokenRow chat_row(const Tokenizer& tokenizer, const ChatTemplate& chat, const std::string& question,
                  const std::string& answer_prefix, const std::string& answer, bool end_turn);

/// prompt and completion tokenised apart and joined, no special tokens.
TokenRow plain_row(const Tokenizer& tokenizer, const std::string& prompt, const std::string& completion);

/// `answer` as the text that goes on after `prompt`, without a chat form: a space between them where two
/// words would run together, none twice for tokenizers that put one before every text; what the
/// post-processor adds (BOS) before the prompt.
TokenRow continuation_row(const Tokenizer& tokenizer, const std::string& prompt, const std::string& answer);

/// Plain text in windows of `window` tokens, every token but the first of a window labelled; a last window of
/// a single token is left out.
std::vector<TokenRow> text_windows(const Tokenizer& tokenizer, const std::string& text, int64_t window);

}  // namespace efface
