#include "core/text/csv.hpp"

#include "distributed/error.hpp"

namespace efface {

std::vector<CsvRow> parse_csv(const std::string& text, const std::string& file) {
  std::vector<CsvRow> rows;
  size_t line = 1;
  for (size_t at = 0; at < text.size();) {
    CsvRow row{{""}, line};
    bool quoted = false;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (c == '\n') ++line;
      std::string& field = row.fields.back();
      if (quoted && c == '"' && at + 1 < text.size() && text[at + 1] == '"') {
        field += text[++at];
      } else if (c == '"' && (quoted || field.empty())) {
        quoted = !quoted;
      } else if (!quoted && c == ',') {
        row.fields.emplace_back();
      } else if (!quoted && c == '\n') {
        ++at;
        break;
      } else if (quoted || c != '\r') {
        field += c;
      }
    }
    if (quoted)
      throw Error(ErrorClass::data, file + ":" + std::to_string(row.line) + ": a quoted field does not end");
    if (row.fields.size() > 1 || !row.fields[0].empty()) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace efface
