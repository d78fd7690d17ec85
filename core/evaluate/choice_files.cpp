// Readers of four-choice questions; declared in multiple_choice.hpp.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/evaluate/multiple_choice.hpp"
#include "core/text/csv.hpp"
#include "core/text/dataset.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

[[noreturn]] void fail(const std::string& source, const std::string& what) {
  throw Error(ErrorClass::data, source + ": " + what);
}

int64_t read_key(const std::string& text, const std::string& source) {
  if (text.size() == 1 && text[0] >= '0' && text[0] <= '3') return text[0] - '0';
  if (text.size() == 1 && text[0] >= 'A' && text[0] <= 'D') return text[0] - 'A';
  fail(source, "answer '" + text + "' is not 0 to 3 or A to D");
}

std::string subject_of_file(const std::filesystem::path& file) {
  std::string name = file.stem().string();
  for (const char* suffix : {"_test", "_dev", "_val"})
    if (name.ends_with(suffix)) name.erase(name.size() - std::string(suffix).size());
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::vector<ChoiceQuestion> read_csv(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) fail(file.string(), "cannot be opened");
  std::ostringstream text;
  text << stream.rdbuf();
  std::vector<ChoiceQuestion> questions;
  for (CsvRow& row : parse_csv(text.str(), file.string())) {
    const std::string source = file.string() + ":" + std::to_string(row.line);
    if (row.fields.size() != 6) fail(source, "six columns are expected: question, four choices, answer");
    if (questions.empty() && row.fields[0] == "question" && row.fields[5] == "answer") continue;
    ChoiceQuestion question{subject_of_file(file), row.fields[0], {}, read_key(row.fields[5], source)};
    question.choices.assign(row.fields.begin() + 1, row.fields.begin() + 5);
    questions.push_back(std::move(question));
  }
  return questions;
}

/// ['it', "it's"] as Python writes a list of strings.
std::vector<std::string> parse_python_list(const std::string& text, const std::string& source) {
  std::vector<std::string> items;
  size_t at = text.find('[');
  while (at != std::string::npos && at + 1 < text.size()) {
    at = text.find_first_of("'\"]", at + 1);
    if (at == std::string::npos) break;
    if (text[at] == ']') return items;
    const char quote = text[at];
    std::string item;
    for (++at; at < text.size() && text[at] != quote; ++at) {
      if (text[at] == '\\' && at + 1 < text.size()) {
        const char escaped = text[++at];
        item += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
      } else {
        item += text[at];
      }
    }
    items.push_back(std::move(item));
  }
  fail(source, "the list of choices does not end");
}

std::string wmdp_subject(const std::string& hint, const std::string& source) {
  if (hint.find("bio") != std::string::npos) return "biology";
  if (hint.find("chem") != std::string::npos) return "chemistry";
  if (hint.find("cyber") != std::string::npos) return "cybersecurity";
  fail(source, "the subject is not known: neither 'category' nor the file's name says bio, chem or cyber");
}

ChoiceQuestion wmdp_question(const Record& record, const std::filesystem::path& file) {
  ChoiceQuestion question;
  const nlohmann::json& raw = record.raw;
  question.subject = wmdp_subject(raw.value("category", file.stem().string()), record.source);
  question.question = record.question.empty() ? record.text : record.question;
  if (raw.contains("choices")) {
    if (!raw["choices"].is_array()) fail(record.source, "'choices' is not a list");
    for (const auto& choice : raw["choices"])
      question.choices.push_back(choice.is_string() ? choice.get<std::string>() : choice.dump());
  } else {
    const std::string mark = "\nChoices: ";
    const size_t at = question.question.rfind(mark);
    if (at == std::string::npos) fail(record.source, "has no choices");
    question.choices = parse_python_list(question.question.substr(at + mark.size()), record.source);
    question.question.resize(at);
  }
  if (question.choices.size() != 4) fail(record.source, "four choices are expected");
  if (!record.answer.empty()) question.answer = read_key(record.answer, record.source);
  return question;
}

}  // namespace

std::vector<ChoiceQuestion> read_mmlu(const std::filesystem::path& file_or_folder) {
  if (!std::filesystem::is_directory(file_or_folder)) return read_csv(file_or_folder);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(file_or_folder))
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  if (files.empty()) fail(file_or_folder.string(), "holds no .csv file");
  std::sort(files.begin(), files.end());
  std::vector<ChoiceQuestion> questions;
  for (const auto& file : files) {
    auto more = read_csv(file);
    std::move(more.begin(), more.end(), std::back_inserter(questions));
  }
  return questions;
}

std::vector<ChoiceQuestion> read_wmdp(const std::filesystem::path& file) {
  std::vector<ChoiceQuestion> questions;
  DataColumns columns;
  columns.text = "scenario";
  for (const Record& record : read_records(file, columns)) questions.push_back(wmdp_question(record, file));
  return questions;
}

}  // namespace efface
