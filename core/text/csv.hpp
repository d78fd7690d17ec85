// Comma-separated values.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace efface {

struct CsvRow {
  std::vector<std::string> fields;
  size_t line;  ///< on which the row begins, from 1
};

/// RFC 4180: quoted fields may hold commas, doubled quotes and line breaks. Empty lines are passed over.
/// Throws Error(data) "file:line: ..." for a quoted field that does not end.
std::vector<CsvRow> parse_csv(const std::string& text, const std::string& file);

}  // namespace efface
