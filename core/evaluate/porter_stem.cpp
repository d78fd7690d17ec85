// Porter's algorithm, steps 1a to 5b, as in "An algorithm for suffix stripping" (1980); where NLTK departs
// from it the departure is followed and marked, since published ROUGE figures were computed with it.
#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string_view>

#include "core/evaluate/text_overlap.hpp"

namespace efface {
namespace {

bool is_consonant(std::string_view word, size_t i) {
  if (std::string_view("aeiou").find(word[i]) != std::string_view::npos) return false;
  return word[i] != 'y' || i == 0 || !is_consonant(word, i - 1);
}

/// m in [C](VC)^m[V]: how often a vowel is followed by a consonant.
int measure(std::string_view stem) {
  int count = 0;
  for (size_t i = 1; i < stem.size(); ++i) count += !is_consonant(stem, i - 1) && is_consonant(stem, i);
  return count;
}

bool has_vowel(std::string_view stem) {
  for (size_t i = 0; i < stem.size(); ++i)
    if (!is_consonant(stem, i)) return true;
  return false;
}

bool ends_with_double_consonant(std::string_view word) {
  const size_t n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1);
}

/// *o: consonant, vowel, consonant other than w, x, y; NLTK: a vowel and a consonant alone too.
bool ends_with_short_syllable(std::string_view word) {
  const size_t n = word.size();
  if (n == 2) return !is_consonant(word, 0) && is_consonant(word, 1);
  return n >= 3 && is_consonant(word, n - 3) && !is_consonant(word, n - 2) && is_consonant(word, n - 1) &&
         std::string_view("wxy").find(word[n - 1]) == std::string_view::npos;
}

struct Rule {
  std::string_view suffix, replacement;
};

/// The first rule whose suffix fits decides; it changes the word only when `condition` holds for the stem.
template <typename Rules, typename Condition>
std::string apply_first(const std::string& word, const Rules& rules, Condition&& condition) {
  for (const Rule& rule : rules) {
    if (!word.ends_with(rule.suffix)) continue;
    const std::string stem = word.substr(0, word.size() - rule.suffix.size());
    return condition(stem, rule) ? stem + std::string(rule.replacement) : word;
  }
  return word;
}

bool measured(const std::string& stem, const Rule&) { return measure(stem) > 0; }

std::string without(const std::string& word, size_t letters) { return word.substr(0, word.size() - letters); }

std::string plurals(const std::string& word) {                                // 1a
  if (word.ends_with("ies")) return without(word, word.size() == 4 ? 1 : 2);  // NLTK: "dies" -> "die"
  if (word.ends_with("sses")) return without(word, 2);
  return word.ends_with("s") && !word.ends_with("ss") ? without(word, 1) : word;
}

std::string past_and_progressive(const std::string& word) {                   // 1b
  if (word.ends_with("ied")) return without(word, word.size() == 4 ? 1 : 2);  // NLTK
  if (word.ends_with("eed")) return measure(without(word, 3)) > 0 ? without(word, 1) : word;
  std::string stem;
  if (word.ends_with("ed"))
    stem = without(word, 2);
  else if (word.ends_with("ing"))
    stem = without(word, 3);
  if (!has_vowel(stem)) return word;
  if (stem.ends_with("at") || stem.ends_with("bl") || stem.ends_with("iz")) return stem + 'e';
  if (ends_with_double_consonant(stem))
    return std::string_view("lsz").find(stem.back()) == std::string_view::npos ? without(stem, 1) : stem;
  return measure(stem) == 1 && ends_with_short_syllable(stem) ? stem + 'e' : stem;
}

std::string final_y(const std::string& word) {  // 1c, NLTK: after a consonant that is not the first letter
  const bool changes = word.ends_with('y') && word.size() > 2 && is_consonant(word, word.size() - 2);
  return changes ? without(word, 1) + 'i' : word;
}

std::string double_suffixes(const std::string& word) {  // 2
  static constexpr std::array<Rule, 22> kRules = {
      {{"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
       {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
       {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
       {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
       {"fulli", "ful"},   {"logi", "log"}}};
  if (word.ends_with("alli") && measure(without(word, 4)) > 0)
    return double_suffixes(without(word, 2));  // NLTK
  return apply_first(word, kRules, [](const std::string& stem, const Rule& rule) {
    return measure(rule.suffix == "logi" ? stem + 'l' : stem) > 0;  // NLTK: the l counts as the stem's
  });
}

std::string adjectives(const std::string& word) {  // 3
  static constexpr std::array<Rule, 7> kRules = {{{"icate", "ic"},
                                                  {"ative", ""},
                                                  {"alize", "al"},
                                                  {"iciti", "ic"},
                                                  {"ical", "ic"},
                                                  {"ful", ""},
                                                  {"ness", ""}}};
  return apply_first(word, kRules, measured);
}

std::string single_suffixes(const std::string& word) {  // 4
  static constexpr std::array<Rule, 19> kRules = {{{"al", ""},
                                                   {"ance", ""},
                                                   {"ence", ""},
                                                   {"er", ""},
                                                   {"ic", ""},
                                                   {"able", ""},
                                                   {"ible", ""},
                                                   {"ant", ""},
                                                   {"ement", ""},
                                                   {"ment", ""},
                                                   {"ent", ""},
                                                   {"ion", ""},
                                                   {"ou", ""},
                                                   {"ism", ""},
                                                   {"ate", ""},
                                                   {"iti", ""},
                                                   {"ous", ""},
                                                   {"ive", ""},
                                                   {"ize", ""}}};
  return apply_first(word, kRules, [](const std::string& stem, const Rule& rule) {
    return measure(stem) > 1 && (rule.suffix != "ion" || stem.ends_with('s') || stem.ends_with('t'));
  });
}

std::string final_e_and_l(const std::string& word) {  // 5a, 5b
  std::string result = word;
  if (result.ends_with('e')) {
    const std::string stem = without(result, 1);
    const int m = measure(stem);
    if (m > 1 || (m == 1 && !ends_with_short_syllable(stem))) result = stem;
  }
  return result.ends_with("ll") && measure(without(result, 1)) > 1 ? without(result, 1) : result;
}

}  // namespace

std::string porter_stem(const std::string& word) {
  static const std::map<std::string_view, std::string_view> kIrregular = {
      {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
      {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
      {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
      {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
  if (const auto found = kIrregular.find(word); found != kIrregular.end()) return std::string(found->second);
  if (word.size() <= 2) return word;
  std::string stem = final_y(past_and_progressive(plurals(word)));
  return final_e_and_l(single_suffixes(adjectives(double_suffixes(stem))));
}

}  // namespace efface
