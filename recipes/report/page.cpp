#include "recipes/report/page.hpp"

#include "recipes/report/svg_chart.hpp"

namespace efface {
namespace {

// Categorical colours keep their order; text is always ink, never a series' colour.
constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--paper:#fcfcfb;--panel:#ffffff;--ink:#1c1b1a;--soft:#5d5b57;--line:#e4e2dd;--good:#0a6b3d;--bad:#b3261e;
--s0:#2a6fdb;--s1:#d9641c;--s2:#16896b;--s3:#b08900;--s4:#8d4fc4;--s5:#c2378a;--s6:#4d7a1f;--s7:#7a6a58;--band:#2a6fdb1c}
@media(prefers-color-scheme:dark){:root{--paper:#181817;--panel:#20201f;--ink:#efeeec;--soft:#a9a7a2;--line:#383735;--good:#5cc98f;--bad:#ff8a80;
--s0:#5b95f0;--s1:#ee8445;--s2:#39b08f;--s3:#d3ab2c;--s4:#b27fe3;--s5:#e768b2;--s6:#86b94e;--s7:#b3a28d;--band:#5b95f02b}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:0 0 6px}
header p,section>p{color:var(--soft);margin:0 0 14px;max-width:78ch}section{margin-top:36px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:20px 0}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px 14px}.tile b{display:block;font-size:24px;font-weight:600}
.tile span{color:var(--soft);font-size:13px}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:14px}
figure{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px}figcaption{font-weight:600;margin-bottom:4px}
svg{width:100%;height:auto;display:block}.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}
.tick,.label{fill:var(--soft);font-size:11px}.band{fill:var(--band)}.hit{fill:transparent}.hit:hover{fill:var(--soft)}
[class^=line]{fill:none;stroke-width:2;stroke-linejoin:round}
.line0{stroke:var(--s0)}.line1{stroke:var(--s1)}.line2{stroke:var(--s2)}.line3{stroke:var(--s3)}.line4{stroke:var(--s4)}.line5{stroke:var(--s5)}.line6{stroke:var(--s6)}.line7{stroke:var(--s7)}
.fill0{fill:var(--s0)}.legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12px;color:var(--soft);margin-bottom:4px}
.legend i{display:inline-block;width:12px;height:3px;border-radius:2px;margin-right:5px;vertical-align:middle}
.key0{background:var(--s0)}.key1{background:var(--s1)}.key2{background:var(--s2)}.key3{background:var(--s3)}.key4{background:var(--s4)}.key5{background:var(--s5)}.key6{background:var(--s6)}.key7{background:var(--s7)}
.scroll{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:8px}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:6px 12px;text-align:left;border-top:1px solid var(--line);vertical-align:top}thead th{border-top:0;color:var(--soft);font-weight:600;font-size:13px}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.good{color:var(--good)}.bad{color:var(--bad)}
pre{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px;font-size:12.5px}
details{margin-top:12px}summary{cursor:pointer;color:var(--soft)}ul.warnings li{color:var(--bad)}
)";

std::string attribute(const TableCell& cell, bool first) {
  const std::string number = first ? "" : "number";
  if (cell.meaning == "text") return "";
  if (cell.meaning.empty() && number.empty()) return "";
  return " class=\"" + (cell.meaning.empty() ? number : number + " " + cell.meaning) + "\"";
}

}  // namespace

std::string html_table(const std::vector<std::string>& header,
                       const std::vector<std::vector<TableCell>>& rows) {
  std::string html = "<div class=\"scroll\"><table><thead><tr>";
  for (size_t i = 0; i < header.size(); ++i) {
    const bool text = i == 0 || (!rows.empty() && i < rows[0].size() && rows[0][i].meaning == "text");
    html += (text ? "<th>" : "<th class=\"number\">") + escape_html(header[i]) + "</th>";
  }
  html += "</tr></thead><tbody>";
  for (const auto& row : rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i)
      html += "<td" + attribute(row[i], i == 0) + ">" + escape_html(row[i].text) + "</td>";
    html += "</tr>";
  }
  return html + "</tbody></table></div>";
}

std::string html_section(const std::string& heading, const std::string& introduction,
                         const std::string& body) {
  return "<section><h2>" + escape_html(heading) + "</h2>" +
         (introduction.empty() ? "" : "<p>" + escape_html(introduction) + "</p>") + body + "</section>";
}

std::string html_page(const std::string& title, const std::string& subtitle, const std::string& body) {
  return "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width,initial-scale=1\"><title>" +
         escape_html(title) + "</title><style>" + kStyle + "</style></head><body><main><header><h1>" +
         escape_html(title) + "</h1><p>" + escape_html(subtitle) + "</p></header>" + body +
         "</main></body></html>\n";
}

}  // namespace efface
