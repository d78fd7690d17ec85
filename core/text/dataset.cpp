#include "core/text/dataset.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "core/text/csv.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const std::string& source, const std::string& what, const std::string& remedy = "") {
  throw Error(ErrorClass::data, source + ": " + what, remedy);
}

std::string read_text(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) fail(file.string(), "cannot be opened");
  std::ostringstream text;
  text << stream.rdbuf();
  std::string result = text.str();
  if (result.starts_with("\xEF\xBB\xBF")) result.erase(0, 3);
  return result;
}

std::string column_names(const json& raw) {
  std::string names;
  for (const auto& [name, value] : raw.items()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

/// One record's columns read by name; complaints carry the record's place.
class ColumnReader {
 public:
  ColumnReader(const json& raw, const std::string& source) : raw_(raw), source_(source) {}

  std::string text(const std::string& column) const {
    const json* value = find(column);
    if (!value) return "";
    if (value->is_string()) return value->get<std::string>();
    if (value->is_number()) return value->dump();
    fail(source_, "column '" + column + "' is not text");
  }

  std::vector<std::string> texts(const std::string& column) const {
    const json* value = find(column);
    if (!value) return {};
    if (!value->is_array()) return {text(column)};
    std::vector<std::string> result;
    for (const json& item : *value) {
      if (!item.is_string()) fail(source_, "column '" + column + "' holds something that is not text");
      result.push_back(item.get<std::string>());
    }
    return result;
  }

  std::vector<ChatMessage> messages(const std::string& column) const {
    const json* value = find(column);
    if (!value) return {};
    if (!value->is_array()) fail(source_, "column '" + column + "' is not a list of messages");
    std::vector<ChatMessage> result;
    for (const json& item : *value) {
      const auto role = message_part(item, "role", "from"), content = message_part(item, "content", "value");
      if (!role || !content)
        fail(source_,
             "message " + std::to_string(result.size() + 1) + " of column '" + column +
                 "' lacks \"role\" or \"content\" (or, as ShareGPT has them, \"from\" and \"value\")");
      result.push_back({usual_role(*role), *content});
    }
    return result;
  }

 private:
  static std::optional<std::string> message_part(const json& item, const char* name, const char* other) {
    for (const char* key : {name, other})
      if (item.is_object() && item.contains(key) && item[key].is_string())
        return item[key].get<std::string>();
    return std::nullopt;
  }

  static std::string usual_role(const std::string& role) {
    return role == "human" ? "user" : role == "gpt" ? "assistant" : role;
  }

  const json* find(const std::string& column) const {
    const auto found = raw_.find(column);
    return found == raw_.end() || found->is_null() ? nullptr : &*found;
  }

  const json& raw_;
  const std::string& source_;
};

/// The last answer and the question before it.
void fill_from_messages(Record& record) {
  const auto is = [](const char* role) { return [role](const ChatMessage& m) { return m.role == role; }; };
  auto answer = std::find_if(record.messages.rbegin(), record.messages.rend(), is("assistant"));
  if (record.answer.empty() && answer != record.messages.rend()) record.answer = answer->content;
  if (answer == record.messages.rend()) answer = record.messages.rbegin();
  const auto question = std::find_if(answer, record.messages.rend(), is("user"));
  if (record.question.empty() && question != record.messages.rend()) record.question = question->content;
}

Record make_record(json raw, const std::string& source, const DataColumns& columns) {
  if (!raw.is_object()) fail(source, "an object of columns is expected");
  Record record;
  record.source = source;
  const ColumnReader reader(raw, source);
  record.question = reader.text(columns.question);
  record.answer = reader.text(columns.answer);
  record.answer_prefix = reader.text(columns.answer_prefix);
  record.bare_prompt = reader.text(columns.bare_prompt);
  record.safe_response = reader.text(columns.safe_response);
  record.subject = reader.text(columns.subject);
  record.text = reader.text(columns.text);
  record.paraphrases = reader.texts(columns.paraphrases);
  record.rewordings = reader.texts(columns.rewordings);
  record.messages = reader.messages(columns.messages);
  if (record.messages.empty() && columns.messages == DataColumns().messages)
    record.messages = reader.messages("conversations");
  fill_from_messages(record);
  if (record.question.empty() && record.text.empty() && record.bare_prompt.empty())
    fail(source,
         "none of the columns '" + columns.question + "', '" + columns.messages + "', '" + columns.text +
             "' is here (found: " + column_names(raw) + ")",
         "name the file's columns in the recipe (data.columns)");
  record.raw = std::move(raw);
  return record;
}

/// 1-based line of a byte of the file.
size_t line_of(const std::string& text, size_t byte) {
  return 1 + static_cast<size_t>(std::count(text.begin(), text.begin() + std::min(byte, text.size()), '\n'));
}

json parse(const std::string& text, const std::string& file, size_t first_line) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    const std::string full = error.what();
    const size_t detail = full.rfind(": ");
    fail(file + ":" + std::to_string(first_line - 1 + line_of(text, error.byte ? error.byte - 1 : 0)),
         "not valid JSON: " + (detail == std::string::npos ? full : full.substr(detail + 2)));
  }
}

std::vector<Record> read_json_lines(const std::string& text, const std::string& file,
                                    const DataColumns& columns) {
  std::vector<Record> records;
  std::istringstream stream(text);
  std::string line;
  for (size_t number = 1; std::getline(stream, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    records.push_back(make_record(parse(line, file, number), file + ":" + std::to_string(number), columns));
  }
  return records;
}

/// Line on which each object of a top-level array begins.
std::vector<size_t> item_lines(const std::string& text) {
  std::vector<size_t> lines;
  size_t line = 1;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') {
      if (depth == 1) lines.push_back(line);
      ++depth;
    }
    if (c == '}' || c == ']') --depth;
  }
  return lines;
}

std::vector<Record> read_json_array(const std::string& text, const std::string& file,
                                    const DataColumns& columns) {
  json items = parse(text, file, 1);
  const std::vector<size_t> lines = item_lines(text);
  std::vector<Record> records;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_structured())
      fail(file, "item " + std::to_string(i + 1) + " of the list is not an object");
    records.push_back(make_record(std::move(items[i]), file + ":" + std::to_string(lines.at(i)), columns));
  }
  return records;
}

std::vector<Record> read_plain_text(const std::string& text, const std::string& file) {
  std::vector<Record> records;
  std::istringstream stream(text);
  std::string line;
  bool open = false;
  for (size_t number = 1; std::getline(stream, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) {
      open = false;
      continue;
    }
    if (!open) {
      records.emplace_back();
      records.back().source = file + ":" + std::to_string(number);
    }
    std::string& block = records.back().text;
    block += (open ? "\n" : "") + line;
    open = true;
  }
  for (Record& record : records) record.raw = {{"text", record.text}};
  return records;
}

std::vector<Record> read_csv(const std::string& text, const std::string& file, const DataColumns& columns) {
  std::vector<Record> records;
  std::vector<std::string> names;
  for (CsvRow& row : parse_csv(text, file)) {
    const std::string source = file + ":" + std::to_string(row.line);
    if (names.empty()) {
      names = std::move(row.fields);
      continue;
    }
    if (row.fields.size() != names.size())
      fail(source, "has " + std::to_string(row.fields.size()) + " columns where the first line names " +
                       std::to_string(names.size()));
    json raw = json::object();
    for (size_t i = 0; i < names.size(); ++i) raw[names[i]] = std::move(row.fields[i]);
    records.push_back(make_record(std::move(raw), source, columns));
  }
  return records;
}

/// Lists of records one level down, as {"forget": [...], "retain": [...]}, are one after the other.
std::vector<Record> read_nested_json(const json& lists, const std::string& file, const DataColumns& columns) {
  std::vector<Record> records;
  for (const auto& [name, list] : lists.items())
    for (size_t i = 0; i < list.size(); ++i)
      records.push_back(make_record(list[i], file + ": " + name + "[" + std::to_string(i) + "]", columns));
  return records;
}

/// {NAME: [{...}, ...], ...} and nothing else: one JSON document, not lines of JSON.
std::optional<json> lists_of_records(const std::string& text) {
  json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || document.empty()) return std::nullopt;
  for (const json& list : document)
    if (!list.is_array() || list.empty() || !list.front().is_object() || list.front().contains("role") ||
        list.front().contains("from"))
      return std::nullopt;
  return document;
}

/// A column the user named must be in the file.
void check_named_columns(const std::vector<Record>& records, const std::string& file,
                         const DataColumns& columns) {
  const DataColumns usual;
  for (auto member :
       {&DataColumns::question, &DataColumns::answer, &DataColumns::answer_prefix, &DataColumns::paraphrases,
        &DataColumns::rewordings, &DataColumns::bare_prompt, &DataColumns::safe_response,
        &DataColumns::subject, &DataColumns::messages, &DataColumns::text}) {
    const std::string& name = columns.*member;
    if (name == usual.*member || records.empty()) continue;
    if (std::none_of(records.begin(), records.end(), [&](const Record& r) { return r.raw.contains(name); }))
      fail(file, "no record has the column '" + name + "'",
           "the first record has: " + column_names(records.front().raw));
  }
}

}  // namespace

std::vector<Record> read_records(const std::filesystem::path& file, const DataColumns& columns) {
  const std::string text = read_text(file), name = file.string();
  if (text.starts_with("PAR1"))
    fail(name, "is a Parquet file, which is not read",
         "with pyarrow installed, write it as JSON lines: python3 -c \"import json, pyarrow.parquet as p; "
         "[print(json.dumps(r)) for r in p.read_table('FILE.parquet').to_pylist()]\" > FILE.jsonl");
  if (file.extension() == ".txt") return read_plain_text(text, name);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) fail(name, "holds no records");
  std::vector<Record> records;
  if (file.extension() == ".csv")
    records = read_csv(text, name, columns);
  else if (text[first] == '[')
    records = read_json_array(text, name, columns);
  else if (const auto lists = lists_of_records(text))
    records = read_nested_json(*lists, name, columns);
  else
    records = read_json_lines(text, name, columns);
  if (records.empty()) fail(name, "holds no records");
  check_named_columns(records, name, columns);
  return records;
}

}  // namespace efface
