// The unigram language model (Kudo 2018): of all cuts of a word into tokens the most probable one, by
// Viterbi.
#include <algorithm>
#include <optional>

#include "core/text/aligned_text.hpp"
#include "core/text/byte_trie.hpp"
#include "core/text/utf8.hpp"
#include "core/text/word_model.hpp"

namespace efface {
namespace {

/// What an unknown character costs beyond the least probable token (SentencePiece's constant).
constexpr double kUnknownPenalty = 10.0;

class UnigramModel final : public WordModel {
 public:
  explicit UnigramModel(const JsonField& field);
  void encode(std::string_view word, std::vector<WordToken>& tokens) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  bool may_cut_before(char32_t, std::string_view, size_t) const override { return false; }

 private:
  struct Node {
    double score = 0;
    int32_t id = -1;
    std::optional<size_t> start;
  };
  std::vector<Node> best_paths(std::string_view word) const;
  void append_unknown(std::string_view word, const TextRange& range, std::vector<WordToken>& tokens) const;

  Vocabulary vocabulary_;
  ByteTrie trie_;
  std::vector<double> scores_;
  int32_t unknown_ = 0;
  std::vector<int32_t> byte_ids_;  // empty without byte fallback
  double unknown_score_ = 0;
};

UnigramModel::UnigramModel(const JsonField& field) {
  for (const JsonField& item : field["vocab"].items()) {
    if (!item.value().is_array() || item.value().size() != 2 || !item.value()[1].is_number())
      item.fail("[token, score] is expected");
    const auto id = static_cast<int32_t>(scores_.size());
    const std::string token = item[0].text();
    vocabulary_.insert_or_assign(token, id);
    if (!token.empty()) trie_.insert(token, id);
    scores_.push_back(item.value()[1].get<double>());
  }
  if (scores_.empty()) field["vocab"].fail("is empty");
  unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  if (!field.has("unk_id")) field.fail("'unk_id' is missing");
  const int64_t unknown = field["unk_id"].integer();
  if (unknown < 0 || unknown >= static_cast<int64_t>(scores_.size()))
    field["unk_id"].fail("is not in the vocabulary");
  unknown_ = static_cast<int32_t>(unknown);
  if (field.boolean_or("byte_fallback", false)) byte_ids_ = byte_token_ids(vocabulary_);
}

/// For every end in the word the best token that ends there.
std::vector<UnigramModel::Node> UnigramModel::best_paths(std::string_view word) const {
  std::vector<Node> ends(word.size() + 1);
  auto offer = [&](size_t start, size_t end, int32_t id, double score) {
    Node& node = ends[end];
    score += ends[start].score;
    if (!node.start || score > node.score) node = {score, id, start};
  };
  for (size_t at = 0; at < word.size();) {
    const size_t length = code_point_length(word[at]);
    bool single = false;
    trie_.for_each_prefix(word.substr(at), [&](size_t bytes, int32_t id) {
      offer(at, at + bytes, id, scores_[static_cast<size_t>(id)]);
      single |= bytes == length;
    });
    if (!single) offer(at, at + length, unknown_, unknown_score_);
    at += length;
  }
  return ends;
}

/// Unknown characters in a row are one: a token after all, its bytes, or the unknown token.
void UnigramModel::append_unknown(std::string_view word, const TextRange& range,
                                  std::vector<WordToken>& tokens) const {
  const auto begin = static_cast<uint32_t>(range.begin), end = static_cast<uint32_t>(range.end);
  const std::string_view text = word.substr(range.begin, range.end - range.begin);
  if (const auto found = vocabulary_.find(text); found != vocabulary_.end()) {
    tokens.push_back({static_cast<int32_t>(found->second), begin, end});
    return;
  }
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (!byte_ids_.empty() && std::all_of(text.begin(), text.end(), [&](char b) { return id_of(b) >= 0; })) {
    for (char byte : text) tokens.push_back({id_of(byte), begin, end});
    return;
  }
  tokens.push_back({unknown_, begin, end});
}

void UnigramModel::encode(std::string_view word, std::vector<WordToken>& tokens) const {
  const std::vector<Node> ends = best_paths(word);
  std::vector<std::pair<TextRange, int32_t>> path;
  for (size_t end = word.size(); end > 0; end = *ends[end].start) {
    const TextRange range{*ends[end].start, end};
    if (ends[end].id == unknown_ && !path.empty() && path.back().second == unknown_)
      path.back().first.begin = range.begin;
    else
      path.push_back({range, ends[end].id});
  }
  for (auto part = path.rbegin(); part != path.rend(); ++part) {
    if (part->second == unknown_)
      append_unknown(word, part->first, tokens);
    else
      tokens.push_back(
          {part->second, static_cast<uint32_t>(part->first.begin), static_cast<uint32_t>(part->first.end)});
  }
}

}  // namespace

std::unique_ptr<WordModel> make_unigram_model(const JsonField& field) {
  return std::make_unique<UnigramModel>(field);
}

}  // namespace efface
