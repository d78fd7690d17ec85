#include "recipes/run_data.hpp"

#include <sys/stat.h>

#include <fstream>

#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

std::vector<Record> read_source(const DataSource& source) {
  if (!source.given()) return {};
  std::vector<Record> records = read_records(source.file, source.columns);
  const auto size = static_cast<int64_t>(records.size());
  const int64_t begin = std::min(size, source.skip);
  const int64_t end = source.max > 0 ? std::min(size, begin + source.max) : size;
  if (begin == end)
    throw Error(ErrorClass::data, source.file.string() + ": no records are left after skipping " +
                                      std::to_string(source.skip) + " of " + std::to_string(size));
  return {records.begin() + begin, records.begin() + end};
}

std::vector<std::string> read_documents(const std::filesystem::path& file) {
  std::vector<std::string> documents;
  if (file.empty()) return documents;
  for (const auto& record : read_records(file)) {
    if (record.text.empty()) throw Error(ErrorClass::data, record.source + ": has no text");
    documents.push_back(record.text);
  }
  if (documents.empty()) throw Error(ErrorClass::data, file.string() + ": is empty");
  return documents;
}

/// {name} by the recipe's part of that name, else by the record's column; parts may name columns too.
std::string fill(const Recipe& recipe, const Record& record, const std::string& text, int depth) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    const size_t close = text[at] == '{' ? text.find('}', at) : std::string::npos;
    if (close == std::string::npos) {
      out += text[at];
      continue;
    }
    const std::string name = text.substr(at + 1, close - at - 1);
    const auto part = recipe.safe_response.parts.find(name);
    if (part != recipe.safe_response.parts.end() && depth < 4) {
      out += fill(recipe, record, part->second, depth + 1);
    } else if (name == "subject" && !record.subject.empty()) {
      out += record.subject;
    } else if (record.raw.contains(name) && record.raw[name].is_string()) {
      out += record.raw[name].get<std::string>();
    } else {
      throw Error(
          ErrorClass::data,
          record.source + ": the safe response names {" + name + "}, which is neither a part nor a column",
          "add it to 'safe_response.parts' or to the record");
    }
    at = close;
  }
  return out;
}

std::vector<std::string> read_idk_lines(const Recipe& recipe) {
  std::vector<std::string> lines;
  if (recipe.safe_response.source != "file") return lines;
  std::ifstream file(recipe.safe_response.file);
  if (!file) throw Error(ErrorClass::data, recipe.safe_response.file.string() + ": cannot be read");
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.contains("text")) line = json["text"].get<std::string>();
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) throw Error(ErrorClass::data, recipe.safe_response.file.string() + ": has no lines");
  return lines;
}

}  // namespace

std::string safe_response(const Recipe& recipe, const Record& record,
                          const std::vector<std::string>& idk_lines, int64_t index) {
  if (recipe.safe_response.source == "column") return record.safe_response;
  if (recipe.safe_response.source == "template")
    return fill(recipe, record, recipe.safe_response.text_template, 0);
  const auto draw =
      philox_uniform({static_cast<uint64_t>(recipe.train.seed), "safe_response", "line"}, 1, 1, index);
  const auto line = static_cast<size_t>(draw.item<float>() * static_cast<float>(idk_lines.size()));
  return idk_lines[std::min(line, idk_lines.size() - 1)];
}

RunData read_run_data(const Recipe& recipe) {
  RunData data;
  data.forget = read_source(recipe.data.forget);
  data.retain = read_source(recipe.data.retain);
  data.neighbours = read_source(recipe.data.neighbours);
  data.same_relation = read_source(recipe.data.same_relation);
  for (const auto& [name, source] : recipe.evaluate.probes) data.probes[name] = read_source(source);
  data.text_covariance = read_documents(recipe.data.text_covariance);
  data.text_heldout = read_documents(recipe.data.text_heldout);
  data.text_retain = read_documents(recipe.data.text_retain);
  data.text_perplexity = read_documents(recipe.data.text_perplexity);
  const auto idk_lines = read_idk_lines(recipe);
  for (size_t i = 0; i < data.forget.size(); ++i)
    data.forget[i].safe_response = safe_response(recipe, data.forget[i], idk_lines, static_cast<int64_t>(i));
  return data;
}

nlohmann::json file_key(const std::filesystem::path& file) {
  return file.empty() ? nlohmann::json() : nlohmann::json(hash_text(read_text_file(file)));
}

nlohmann::json source_key(const DataSource& source) {
  if (!source.given()) return nullptr;
  const DataColumns& columns = source.columns;
  return {{"content", file_key(source.file)},
          {"skip", source.skip},
          {"max", source.max},
          {"repeat", source.repeat},
          {"columns",
           {columns.question, columns.answer, columns.answer_prefix, columns.paraphrases, columns.rewordings,
            columns.bare_prompt, columns.safe_response, columns.subject, columns.messages, columns.text}}};
}

nlohmann::json model_folder_key(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder))
    throw Error(ErrorClass::model, folder.string() + ": no such folder",
                "'model.path' names a Hugging Face folder; `efface import` makes one from a GGUF");
  nlohmann::json key;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().filename();
    const std::string extension = entry.path().extension();
    if (extension == ".json" || extension == ".jinja") {
      key[name] = file_key(entry.path());
    } else if (extension == ".safetensors") {
      struct stat status {};
      if (stat(entry.path().c_str(), &status) != 0)
        throw Error(ErrorClass::model, entry.path().string() + ": cannot be read");
      key[name] = {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
    }
  }
  return key;
}

}  // namespace efface
