#include "core/text/chat_template.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "core/text/json_field.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

using namespace std::string_literals;

constexpr const char* kSmollm2System = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
constexpr const char* kQwen2System = "You are a helpful assistant.";
constexpr const char* kQwen25System = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
/// The date is the one Llama 3.1's template falls back to, so that a row does not depend on the day.
constexpr const char* kLlama31Dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

std::string trimmed(const std::string& text) {
  const char* space = " \t\n\r\f\v";
  const size_t begin = text.find_first_not_of(space);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The system line a ChatML template writes when the conversation has none: a system turn whose whole text
/// is one literal of the Jinja source.
std::optional<std::string> literal_system_line(const std::string& jinja) {
  const std::string open = "<|im_start|>system";
  for (size_t at = jinja.find(open); at != std::string::npos; at = jinja.find(open, at + 1)) {
    size_t begin = at + open.size();
    if (jinja.compare(begin, 2, "\\n") == 0)
      begin += 2;
    else if (begin < jinja.size() && jinja[begin] == '\n')
      begin += 1;
    else
      continue;
    const size_t end = jinja.find("<|im_end|>", begin);
    if (end == std::string::npos) continue;
    const std::string line = jinja.substr(begin, end - begin);
    if (line.find_first_of("'\"{}+") == std::string::npos) return line;
  }
  return std::nullopt;
}

std::string recognise_chatml(const std::string& jinja) {
  if (holds(jinja, "enable_thinking")) return "chatml-qwen3";
  const auto system = literal_system_line(jinja);
  if (!system) return "chatml";
  if (*system == kSmollm2System) return "chatml-smollm2";
  if (*system == kQwen2System) return "chatml-qwen2";
  if (*system == kQwen25System) return "chatml-qwen2.5";
  return "";
}

std::string recognise_name(const std::string& jinja) {
  if (holds(jinja, "<|im_start|>")) return recognise_chatml(jinja);
  if (holds(jinja, "<|start_header_id|>"))
    return holds(jinja, "Cutting Knowledge Date") ? "llama3.1" : "llama3";
  if (holds(jinja, "[INST]") && holds(jinja, "<<SYS>>")) return "llama2";
  if (holds(jinja, "[INST] ") && holds(jinja, " [/INST]")) return "mistral";
  if (holds(jinja, "<|user|>") && holds(jinja, "<|assistant|>") && holds(jinja, "eos_token") &&
      !holds(jinja, "<|end|>"))
    return "zephyr";
  if (holds(jinja, "Question:") && holds(jinja, "Answer:")) return "phi";
  return "";
}

/// chat_template of tokenizer_config.json: a string, or a list of named ones with a "default".
std::optional<std::string> configured_template(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return std::nullopt;
  const nlohmann::json json = parse_json_file(file);
  const JsonField field = JsonField(json, file).optional("chat_template");
  if (field.is_null()) return std::nullopt;
  if (field.value().is_string()) return field.text();
  for (const JsonField& item : field.items())
    if (item["name"].text() == "default") return item["template"].text();
  field.fail("no template is named 'default'");
}

}  // namespace

std::vector<std::string> ChatTemplate::names() {
  return {"chatml",   "chatml-smollm2", "chatml-qwen2", "chatml-qwen2.5", "chatml-qwen3", "llama2", "llama3",
          "llama3.1", "mistral",        "phi",          "zephyr",         "none"};
}

ChatTemplate ChatTemplate::named(const std::string& name) {
  const auto known = names();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    std::string list;
    for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
    throw Error(ErrorClass::usage, "chat template '" + name + "' is not known", "one of: " + list);
  }
  ChatTemplate chat;
  chat.name_ = name;
  if (name.starts_with("chatml")) {
    chat.role_begin_ = "<|im_start|>"s, chat.role_end_ = '\n', chat.close_ = "<|im_end|>\n"s;
    chat.turn_end_ = "<|im_end|>"s;
    if (name == "chatml-smollm2") chat.default_system_ = std::string(kSmollm2System);
    if (name == "chatml-qwen2") chat.default_system_ = std::string(kQwen2System);
    if (name == "chatml-qwen2.5") chat.default_system_ = std::string(kQwen25System);
    if (name == "chatml-qwen3") chat.answer_begin_ = "<think>\n\n</think>\n\n"s;
  } else if (name.starts_with("llama3")) {
    chat.begin_ = "<|begin_of_text|>"s;
    chat.role_begin_ = "<|start_header_id|>"s, chat.role_end_ = "<|end_header_id|>\n\n"s;
    chat.close_ = chat.turn_end_ = "<|eot_id|>"s;
    chat.trim_ = true;
    if (name == "llama3.1") chat.system_prefix_ = std::string(kLlama31Dates);
  } else if (name == "zephyr") {
    chat.role_begin_ = "<|"s, chat.role_end_ = "|>\n"s, chat.close_ = "</s>\n"s, chat.turn_end_ = "</s>"s;
  } else if (name == "llama2" || name == "mistral") {
    chat.begin_ = "<s>"s, chat.turn_end_ = "</s>"s;
  } else if (name == "phi") {
    chat.turn_end_ = "<|endoftext|>"s, chat.answer_space_ = " "s;
  }
  return chat;
}

ChatTemplate ChatTemplate::recognise(const std::string& jinja, const std::string& source) {
  const std::string name = recognise_name(jinja);
  if (name.empty())
    throw Error(
        ErrorClass::model, source + ": this chat template is not known",
        "name one in the recipe, model.template: chatml, llama2, llama3, mistral, phi, zephyr or none");
  return named(name);
}

ChatTemplate ChatTemplate::detect(const std::filesystem::path& folder) {
  const auto jinja_file = folder / "chat_template.jinja", config_file = folder / "tokenizer_config.json";
  if (std::ifstream stream(jinja_file, std::ios::binary); stream) {
    std::ostringstream text;
    text << stream.rdbuf();
    return recognise(text.str(), jinja_file.string());
  }
  const auto text = configured_template(config_file);
  return text ? recognise(*text, config_file.string() + ": chat_template") : named("none");
}

ChatTemplate ChatTemplate::with_system(const std::string& line) const {
  ChatTemplate chat = *this;
  chat.default_system_ = line;
  return chat;
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, bool generation_prompt) const {
  if (name_ == "none") {
    std::string text;
    for (const ChatMessage& message : messages) text += message.content;
    return text;
  }
  if (name_ == "phi") return render_question(messages, generation_prompt);
  if (name_ == "llama2" || name_ == "mistral") return render_inst(messages);
  return render_turns(messages, generation_prompt);
}

std::string ChatTemplate::render_turns(const std::vector<ChatMessage>& messages,
                                       bool generation_prompt) const {
  std::string text = begin_;
  auto open = [&](const std::string& role) { text += role_begin_ + role + role_end_; };
  const bool has_system = !messages.empty() && messages.front().role == "system";
  if (!has_system && !(default_system_ + system_prefix_).empty()) {
    open("system");
    text += system_prefix_ + default_system_ + close_;
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    open(message.role);
    if (i == 0 && has_system) text += system_prefix_;
    if (i + 1 == messages.size() && message.role == "assistant") text += answer_begin_;
    text += (trim_ ? trimmed(message.content) : message.content) + close_;
  }
  if (generation_prompt) {
    open("assistant");
    text += answer_begin_;
  }
  return text;
}

std::string ChatTemplate::render_inst(const std::vector<ChatMessage>& messages) const {
  const bool every_turn = name_ == "llama2";
  std::string text = every_turn ? "" : begin_, system;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "system") {
      system = every_turn ? "<<SYS>>\n" + message.content + "\n<</SYS>>\n\n" : message.content + "\n\n";
    } else if (message.role == "user") {
      text += (every_turn ? begin_ : "") + "[INST] " + system + message.content + " [/INST]";
      system.clear();
    } else {
      text += message.content + turn_end_;
      if (!every_turn && i + 1 < messages.size()) text += " ";
    }
  }
  return text;
}

std::string ChatTemplate::render_question(const std::vector<ChatMessage>& messages,
                                          bool generation_prompt) const {
  std::string text;
  for (const ChatMessage& message : messages) {
    if (message.role == "system")
      text += message.content + "\n";
    else if (message.role == "user")
      text += "Question: " + message.content + "\n";
    else
      text += "Answer: " + message.content + turn_end_;
  }
  return generation_prompt ? text + "Answer:" : text;
}

}  // namespace efface
