#include "core/text/bpe.hpp"

#include <cstdio>
#include <mutex>
#include <queue>
#include <shared_mutex>

#include "core/text/utf8.hpp"

namespace efface {
namespace {

constexpr size_t kCachedWords = 1 << 16;
constexpr size_t kCachedWordBytes = 256;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

/// A symbol of the word being merged, linked to its neighbours; -1 at the ends.
struct Symbol {
  int32_t id;
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

}  // namespace

/// Words already encoded; it stops growing when full, since frequent words come early.
class BytePairEncoder::WordCache {
 public:
  bool find(const std::string& word, std::vector<int64_t>& ids) const {
    std::shared_lock lock(mutex_);
    const auto found = words_.find(word);
    if (found == words_.end()) return false;
    ids.insert(ids.end(), found->second.begin(), found->second.end());
    return true;
  }
  void store(const std::string& word, const std::vector<int32_t>& symbols) {
    std::unique_lock lock(mutex_);
    if (words_.size() < kCachedWords) words_.emplace(word, symbols);
  }

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<std::string, std::vector<int32_t>> words_;
};

BytePairEncoder::~BytePairEncoder() = default;
BytePairEncoder::BytePairEncoder(BytePairEncoder&&) noexcept = default;

BytePairEncoder::BytePairEncoder(const JsonField& field) : cache_(std::make_unique<WordCache>()) {
  if (field.has("type") && field["type"].text() != "BPE")
    field["type"].fail("'" + field["type"].text() + "' is not supported (BPE is)");
  refuse_affix(field, "continuing_subword_prefix");
  refuse_affix(field, "end_of_word_suffix");
  if (field.has("dropout") && field["dropout"].value() != 0) field["dropout"].fail("is not supported");
  const JsonField vocabulary = field["vocab"];
  if (!vocabulary.value().is_object()) vocabulary.fail("an object of token and id is expected");
  vocabulary_.reserve(vocabulary.value().size());
  for (const auto& [token, id] : vocabulary.value().items()) {
    if (!id.is_number_integer()) vocabulary.fail("the id of '" + token + "' is not an integer");
    vocabulary_.emplace(token, id.get<int32_t>());
  }
  fuse_unknown_ = field.boolean_or("fuse_unk", false);
  ignore_merges_ = field.boolean_or("ignore_merges", false);
  if (field.has("unk_token")) {
    const auto found = vocabulary_.find(field["unk_token"].text());
    if (found == vocabulary_.end()) field["unk_token"].fail("is not in the vocabulary");
    unknown_ = static_cast<int32_t>(found->second);
  }
  if (field.boolean_or("byte_fallback", false)) {
    char name[8];
    for (int byte = 0; byte < 256; ++byte) {
      std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
      const auto found = vocabulary_.find(std::string_view(name));
      byte_ids_.push_back(found == vocabulary_.end() ? -1 : static_cast<int32_t>(found->second));
    }
  }
  read_merges(field["merges"]);
}

void BytePairEncoder::read_merges(const JsonField& field) {
  if (!field.value().is_array()) field.fail("a list is expected");
  merges_.reserve(field.value().size());
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
    merges_.insert_or_assign(pair_key(static_cast<int32_t>(a->second), static_cast<int32_t>(b->second)),
                             Merge{rank, static_cast<int32_t>(ab->second)});
    ++rank;
  }
}

const BytePairEncoder::Merge* BytePairEncoder::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

bool BytePairEncoder::append_bytes(std::string_view character, std::vector<int32_t>& symbols) const {
  if (byte_ids_.empty()) return false;
  for (char byte : character)
    if (byte_ids_[static_cast<unsigned char>(byte)] < 0) return false;
  for (char byte : character) symbols.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  return true;
}

/// A character outside the vocabulary is its bytes, else the unknown token, else nothing.
std::vector<int32_t> BytePairEncoder::characters(const std::string& word) const {
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const size_t length = std::min(code_point_length(word[at]), word.size() - at);
    const auto character = std::string_view(word).substr(at, length);
    at += length;
    const auto found = vocabulary_.find(character);
    if (found != vocabulary_.end()) {
      symbols.push_back(static_cast<int32_t>(found->second));
      after_unknown = false;
    } else if (!append_bytes(character, symbols) && unknown_ >= 0) {
      if (!after_unknown || !fuse_unknown_) symbols.push_back(unknown_);
      after_unknown = true;
    }
  }
  return symbols;
}

void BytePairEncoder::merge(std::vector<int32_t>& symbols) const {
  const auto size = static_cast<int32_t>(symbols.size());
  std::vector<Symbol> chain(symbols.size());
  for (int32_t i = 0; i < size; ++i) chain[i] = {symbols[i], i - 1, i + 1 < size ? i + 1 : -1};
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  auto consider = [&](int32_t left) {
    if (left < 0 || chain[left].next < 0) return;
    const int32_t a = chain[left].id, b = chain[chain[left].next].id;
    if (const Merge* found = find_merge(a, b)) queue.push({found->rank, left, a, b, found->id});
  };
  for (int32_t i = 0; i + 1 < size; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = chain[best.left];
    if (left.id != best.left_id || left.next < 0 || chain[left.next].id != best.right_id) continue;
    const int32_t gone = left.next;
    left.id = best.merged;
    left.next = chain[gone].next;
    chain[gone].id = -1;
    if (left.next >= 0) chain[left.next].previous = best.left;
    consider(left.previous);
    consider(best.left);
  }
  symbols.clear();
  for (int32_t i = size ? 0 : -1; i >= 0; i = chain[i].next) symbols.push_back(chain[i].id);
}

void BytePairEncoder::encode(const std::string& word, std::vector<int64_t>& ids) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    if (const auto whole = vocabulary_.find(word); whole != vocabulary_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  const bool cached = word.size() <= kCachedWordBytes;
  if (cached && cache_->find(word, ids)) return;
  std::vector<int32_t> symbols = characters(word);
  merge(symbols);
  if (cached) cache_->store(word, symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

}  // namespace efface
