// Records from the files a user has: JSON lines, JSON, CSV, plain text.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/text/chat_template.hpp"

namespace efface {

/// Which column holds what; the defaults are tried in order where the recipe is silent.
struct DataColumns {
  std::string question = "question";
  std::string answer = "answer";
  std::string answer_prefix = "answer_prefix";  ///< the assistant's sentence begun: "The capital is"
  std::string paraphrases = "paraphrases";      ///< other wordings used in training
  std::string rewordings = "rewordings";        ///< wordings never trained on
  std::string bare_prompt = "bare_prompt";      ///< the fact without a question: "The capital of France is"
  std::string safe_response = "safe_response";
  std::string subject = "subject";
  std::string messages = "messages";
  std::string text = "text";
};

struct Record {
  std::string question, answer, answer_prefix, bare_prompt, safe_response, subject, text;
  std::vector<std::string> paraphrases, rewordings;
  std::vector<ChatMessage> messages;
  std::string source;  ///< "file:line", for messages to the user
  nlohmann::json raw;  ///< all columns
};

/// JSON lines; a JSON array of objects; a JSON object of such arrays, read one after the other; .csv (its
/// first line names the columns); .txt (one record, `text`, for each block between blank lines).
/// Conversations are in the column `messages` (or `conversations`), as {role, content} or ShareGPT's {from,
/// value}. Throws Error(data) with file and line.
std::vector<Record> read_records(const std::filesystem::path& file, const DataColumns& columns = {});

}  // namespace efface
