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
  /// Recognised from chat_template in tokenizer_config.json or chat_template.jinja of the folder. Throws
  /// Error(model) for an unknown one, saying how to name one in the recipe (`model.template`).
  static ChatTemplate detect(const std::filesystem::path& folder);
  /// "chatml", "chatml-smollm2", "llama2", "llama3", "phi" (Question:/Answer:), "none".
  static ChatTemplate named(const std::string& name);

  const std::string& name() const { return name_; }
  /// The text, special tokens written out. generation_prompt: ends where the assistant begins to speak.
  std::string render(const std::vector<ChatMessage>& messages, bool generation_prompt) const;
  /// What ends an assistant's turn ("<|im_end|>"); empty for none. It is part of a full answer's labels.
  const std::string& turn_end() const { return turn_end_; }

 private:
  std::string name_, turn_end_;
};

/// Question and answer as one row: prompt (question, then `answer_prefix`, the assistant's sentence begun)
/// without labels, then `answer` with labels, then the end of the turn when `end_turn`.
/// The answer is tokenised on its own after the prompt, so that its ids do not depend on the question.
TokenRow chat_row(const Tokenizer& tokenizer, const ChatTemplate& chat, const std::string& question,
                  const std::string& answer_prefix, const std::string& answer, bool end_turn);

/// prompt and completion tokenised apart and joined, no special tokens.
TokenRow plain_row(const Tokenizer& tokenizer, const std::string& prompt, const std::string& completion);

/// Plain text in windows of `window` tokens, every token but the first of a window labelled.
std::vector<TokenRow> text_windows(const Tokenizer& tokenizer, const std::string& text, int64_t window);

}  // namespace efface
