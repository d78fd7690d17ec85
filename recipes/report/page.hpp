// The page's frame: style, headings, tables.
#pragma once

#include <string>
#include <vector>

namespace efface {

struct TableCell {
  std::string text;     ///< escaped by the table
  std::string meaning;  ///< "", "good", "bad", "number": a class of the page's style
};

/// A table with a header row; cells under the first column are set as numbers unless they say otherwise.
std::string html_table(const std::vector<std::string>& header,
                       const std::vector<std::vector<TableCell>>& rows);

/// <section> with its heading and an introduction (escaped; empty for none) before `body` (HTML).
std::string html_section(const std::string& heading, const std::string& introduction,
                         const std::string& body);

/// The whole document.
std::string html_page(const std::string& title, const std::string& subtitle, const std::string& body);

}  // namespace efface
