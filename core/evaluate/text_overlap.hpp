// ROUGE-L (Lin 2004) as the rouge_score package computes it.
#pragma once

#include <string>
#include <vector>

namespace efface {

/// Lower case, runs of letters and digits (ASCII); words of more than three letters stemmed when asked for.
std::vector<std::string> rouge_words(const std::string& text, bool stem);

/// Porter's stemmer (1980) with NLTK's extensions; `word` in lower case.
std::string porter_stem(const std::string& word);

struct RougeL {
  double precision = 0, recall = 0, f1 = 0;
};
/// Longest common subsequence of words over the words of prediction (precision) and target (recall).
RougeL rouge_l(const std::string& target, const std::string& prediction, bool stem);

}  // namespace efface
