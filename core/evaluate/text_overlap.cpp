#include "core/evaluate/text_overlap.hpp"

#include <algorithm>

namespace efface {

std::vector<std::string> rouge_words(const std::string& text, bool stem) {
  std::vector<std::string> words;
  std::string word;
  const auto finish = [&] {
    if (word.empty()) return;
    words.push_back(stem && word.size() > 3 ? porter_stem(word) : word);
    word.clear();
  };
  for (char c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
      word += c;
    else
      finish();
  }
  finish();
  return words;
}

RougeL rouge_l(const std::string& target, const std::string& prediction, bool stem) {
  const auto wanted = rouge_words(target, stem), said = rouge_words(prediction, stem);
  RougeL score;
  if (wanted.empty() || said.empty()) return score;
  std::vector<size_t> previous(said.size() + 1), current(said.size() + 1);
  for (const std::string& word : wanted) {
    for (size_t j = 0; j < said.size(); ++j)
      current[j + 1] = word == said[j] ? previous[j] + 1 : std::max(previous[j + 1], current[j]);
    std::swap(previous, current);
  }
  const auto common = static_cast<double>(previous.back());
  score.precision = common / static_cast<double>(said.size());
  score.recall = common / static_cast<double>(wanted.size());
  if (common > 0) score.f1 = 2 * score.precision * score.recall / (score.precision + score.recall);
  return score;
}

}  // namespace efface
