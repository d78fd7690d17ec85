// Byte-pair encoding (Sennrich et al. 2016): a word's characters are merged pair by pair, lowest rank first.
#include <optional>
#include <queue>
#include <unordered_set>

#include "core/text/flat_map.hpp"
#include "core/text/utf8.hpp"
#include "core/text/word_model.hpp"

namespace efface {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct Merge {
  int32_t rank, id;
};

/// A symbol of the word being merged, linked to its neighbours; -1 at the ends.
struct Symbol {
  int32_t id;
  uint32_t length;  // bytes; 0 once merged into another
  int32_t previous, next;
};

/// A pair that could be merged: the one at `left`, valid while both ids are still those it was found with.
struct Candidate {
  int32_t rank, left, left_id, right_id, merged;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

void refuse_affix(const JsonField& field, const std::string& key) {
  if (field.has(key) && !field[key].text().empty()) field[key].fail("is not supported");
}

char32_t first_character(std::string_view text) {
  size_t length = 0;
  return decode_code_point(text, length);
}

class BytePairModel final : public WordModel {
 public:
  explicit BytePairModel(const JsonField& field);
  void encode(std::string_view word, std::vector<WordToken>& tokens) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  bool may_cut_before(char32_t mark, std::string_view text, size_t at) const override;

 private:
  void read_vocabulary(const JsonField& field);
  void read_merges(const JsonField& field);
  void note_boundaries(std::string_view left, std::string_view right);
  std::vector<Symbol> symbols(std::string_view word) const;
  bool append_bytes(std::string_view character, std::vector<Symbol>& symbols) const;
  void merge(std::vector<Symbol>& chain) const;

  Vocabulary vocabulary_;
  FlatMap<int32_t> characters_;  // id of a single character
  FlatMap<Merge> merges_;        // by pair_key
  std::optional<int32_t> unknown_;
  std::vector<int32_t> byte_ids_;  // empty without byte fallback
  bool fuse_unknown_ = false, ignore_merges_ = false;
  std::unordered_set<uint64_t> joined_;  // (last character, first character) that some merge brings together
  bool boundaries_known_ = true;
};

// Dropout makes training see several cuts of a word at random; what a text is, is the cut without it:
// ignored.
BytePairModel::BytePairModel(const JsonField& field) {
  refuse_affix(field, "continuing_subword_prefix");
  refuse_affix(field, "end_of_word_suffix");
  read_vocabulary(field["vocab"]);
  fuse_unknown_ = field.boolean_or("fuse_unk", false);
  ignore_merges_ = field.boolean_or("ignore_merges", false);
  if (field.has("unk_token")) {
    const auto found = vocabulary_.find(field["unk_token"].text());
    if (found == vocabulary_.end()) field["unk_token"].fail("is not in the vocabulary");
    unknown_ = static_cast<int32_t>(found->second);
  }
  if (field.boolean_or("byte_fallback", false)) byte_ids_ = byte_token_ids(vocabulary_);
  read_merges(field["merges"]);
  // Words known as a whole, and characters that vanish, reach over every boundary.
  boundaries_known_ = boundaries_known_ && !ignore_merges_ && unknown_;
}

void BytePairModel::read_vocabulary(const JsonField& field) {
  if (!field.value().is_object()) field.fail("an object of token and id is expected");
  vocabulary_.reserve(field.value().size());
  std::vector<std::pair<char32_t, int32_t>> characters;
  for (const auto& [token, id] : field.value().items()) {
    if (!id.is_number_integer()) field.fail("the id of '" + token + "' is not an integer");
    vocabulary_.emplace(token, id.get<int32_t>());
    if (!token.empty() && code_point_length(token[0]) == token.size())
      characters.emplace_back(first_character(token), id.get<int32_t>());
  }
  characters_ = FlatMap<int32_t>(characters.size());
  for (const auto& [character, id] : characters) characters_.set(character, id);
}

void BytePairModel::read_merges(const JsonField& field) {
  if (!field.value().is_array()) field.fail("a list is expected");
  merges_ = FlatMap<Merge>(field.value().size());
  std::string left, right, both;
  int32_t rank = 0;
  for (const auto& item : field.value()) {
    if (item.is_string()) {
      const auto& text = item.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos) field[static_cast<size_t>(rank)].fail("two tokens are expected");
      left.assign(text, 0, space);
      right.assign(text, space + 1);
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      left = item[0].get_ref<const std::string&>();
      right = item[1].get_ref<const std::string&>();
    } else {
      field[static_cast<size_t>(rank)].fail("\"a b\" or [\"a\", \"b\"] is expected");
    }
    both = left + right;
    const auto a = vocabulary_.find(left), b = vocabulary_.find(right), ab = vocabulary_.find(both);
    if (a == vocabulary_.end() || b == vocabulary_.end() || ab == vocabulary_.end())
      field[static_cast<size_t>(rank)].fail("'" + left + "', '" + right +
                                            "' or both joined are not in the vocabulary");
    merges_.set(pair_key(static_cast<int32_t>(a->second), static_cast<int32_t>(b->second)),
                {rank, static_cast<int32_t>(ab->second)});
    note_boundaries(left, right);
    ++rank;
  }
}

void BytePairModel::note_boundaries(std::string_view left, std::string_view right) {
  if (left.empty() || right.empty()) return;
  joined_.insert(static_cast<uint64_t>(first_character(left.substr(start_of_last_character(left)))) << 32 |
                 first_character(right));
  // Symbols that stand for other characters than those of their names.
  for (const std::string_view part : {left, right}) {
    const auto id = static_cast<int32_t>(vocabulary_.find(part)->second);
    if (id == unknown_ || std::find(byte_ids_.begin(), byte_ids_.end(), id) != byte_ids_.end())
      boundaries_known_ = false;
  }
}

bool BytePairModel::may_cut_before(char32_t mark, std::string_view text, size_t at) const {
  if (!boundaries_known_ || !characters_.find(mark)) return false;
  const char32_t before = first_character(text.substr(start_of_last_character(text.substr(0, at))));
  return !joined_.contains(static_cast<uint64_t>(before) << 32 | mark);
}

bool BytePairModel::append_bytes(std::string_view character, std::vector<Symbol>& symbols) const {
  if (byte_ids_.empty()) return false;
  for (char byte : character)
    if (byte_ids_[static_cast<unsigned char>(byte)] < 0) return false;
  for (char byte : character) symbols.push_back({byte_ids_[static_cast<unsigned char>(byte)], 1, 0, 0});
  return true;
}

/// A character outside the vocabulary is its bytes, else the unknown token, else nothing. An unknown token
/// waits for the next known character, also behind bytes, as in Hugging Face's library.
std::vector<Symbol> BytePairModel::symbols(std::string_view word) const {
  std::vector<Symbol> result;
  result.reserve(word.size());
  uint32_t waiting = 0;  // bytes of the unknown token
  auto flush = [&] {
    if (waiting > 0) result.push_back({*unknown_, waiting, 0, 0});
    waiting = 0;
  };
  for_each_code_point(word, [&](char32_t c, size_t begin, size_t end) {
    const auto length = static_cast<uint32_t>(end - begin);
    if (const int32_t* id = characters_.find(c)) {
      flush();
      result.push_back({*id, length, 0, 0});
    } else if (!append_bytes(word.substr(begin, length), result) && unknown_) {
      if (!fuse_unknown_) flush();
      waiting += length;
    }
  });
  flush();
  return result;
}

void BytePairModel::merge(std::vector<Symbol>& chain) const {
  const auto size = static_cast<int32_t>(chain.size());
  std::vector<Candidate> candidates;
  candidates.reserve(chain.size());
  auto candidate = [&](int32_t left) -> std::optional<Candidate> {
    if (left < 0 || chain[left].next < 0) return std::nullopt;
    const int32_t a = chain[left].id, b = chain[chain[left].next].id;
    const Merge* found = merges_.find(pair_key(a, b));
    if (!found) return std::nullopt;
    return Candidate{found->rank, left, a, b, found->id};
  };
  for (int32_t i = 0; i < size; ++i) {
    chain[i].previous = i - 1;
    chain[i].next = i + 1 < size ? i + 1 : -1;
  }
  for (int32_t i = 0; i + 1 < size; ++i)
    if (const auto found = candidate(i)) candidates.push_back(*found);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue({}, std::move(candidates));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = chain[best.left];
    if (left.length == 0 || left.id != best.left_id || left.next < 0 || chain[left.next].id != best.right_id)
      continue;
    Symbol& gone = chain[left.next];
    left.id = best.merged;
    left.length += gone.length;
    left.next = gone.next;
    gone.length = 0;
    if (left.next >= 0) chain[left.next].previous = best.left;
    for (const int32_t at : {left.previous, best.left})
      if (const auto found = candidate(at)) queue.push(*found);
  }
}

void BytePairModel::encode(std::string_view word, std::vector<WordToken>& tokens) const {
  if (ignore_merges_) {
    if (const auto whole = vocabulary_.find(word); whole != vocabulary_.end()) {
      tokens.push_back({static_cast<int32_t>(whole->second), 0, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  std::vector<Symbol> chain = symbols(word);
  merge(chain);
  uint32_t at = 0;
  for (int32_t i = chain.empty() ? -1 : 0; i >= 0; i = chain[i].next) {
    tokens.push_back({chain[i].id, at, at + chain[i].length});
    at += chain[i].length;
  }
}

}  // namespace

std::unique_ptr<WordModel> make_byte_pair_model(const JsonField& field) {
  return std::make_unique<BytePairModel>(field);
}

}  // namespace efface
