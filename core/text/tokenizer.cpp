#include "core/text/tokenizer.hpp"

#include <algorithm>
#include <unordered_set>

#include "core/text/added_tokens.hpp"
#include "core/text/json_field.hpp"
#include "core/text/tokenizer_stages.hpp"
#include "core/text/word_encoder.hpp"

namespace efface {
struct Tokenizer::Implementation {
  PreTokenizer pre_tokenizer;
  WordEncoder words;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  TokenNames tokens;  // empty where there is none
  std::unordered_set<int64_t> special;
  Vocabulary added_ids;

  Implementation(PreTokenizer cut, std::unique_ptr<WordModel> model, AddedTokens added_tokens,
                 PostProcessor post, Decoder decode)
      : pre_tokenizer(std::move(cut)),
        words(std::move(model), pre_tokenizer.byte_level),
        added(std::move(added_tokens)),
        post_processor(std::move(post)),
        decoder(std::move(decode)) {}
  const Vocabulary& vocabulary() const { return words.model().vocabulary(); }
};

namespace {

/// SentencePiece's space.
constexpr char32_t kMark = 0x2581;
constexpr std::string_view kMarkBytes = "\xE2\x96\x81";

/// Models of whole texts see them word by word where that makes no difference: no long merges, and words are
/// remembered.
void cut_before_marks(Words& words, const WordModel& model) {
  const std::string_view text = words.text.text();
  std::vector<TextRange> result;
  for (const TextRange& word : words.ranges) {
    size_t from = word.begin;
    for (size_t at = text.find(kMarkBytes, from + 1); at < word.end;
         at = text.find(kMarkBytes, at + kMarkBytes.size()))
      if (model.may_cut_before(kMark, text, at)) {
        result.push_back({from, at});
        from = at;
      }
    result.push_back({from, word.end});
  }
  words.ranges = std::move(result);
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  const nlohmann::json json = parse_json_file(file);
  const JsonField top(json, file);
  auto added =
      json.contains("added_tokens") ? read_added_tokens(top["added_tokens"]) : std::vector<AddedToken>{};

  auto result = std::make_shared<Implementation>(
      make_pre_tokenizer(top.optional("pre_tokenizer")), make_word_model(top["model"]),
      AddedTokens(std::move(added), make_normalizer(top.optional("normalizer"))),
      make_post_processor(top.optional("post_processor")), make_decoder(top.optional("decoder")));

  auto name = [&](int64_t id, const std::string& token) {
    if (id < 0 || id > (1 << 24))
      top["model"].fail("id " + std::to_string(id) + " of '" + token + "' is out of range");
    if (id >= static_cast<int64_t>(result->tokens.size())) result->tokens.resize(id + 1);
    result->tokens[id] = token;
  };
  for (const auto& [token, id] : result->vocabulary()) name(id, token);
  for (const AddedToken& token : result->added.tokens()) {
    name(token.id, token.content);
    result->added_ids[token.content] = token.id;
    if (token.special) result->special.insert(token.id);
  }
  Tokenizer tokenizer;
  tokenizer.implementation_ = std::move(result);
  return tokenizer;
}

Encoding Tokenizer::run(std::string_view text, bool add_special, bool with_offsets) const {
  const Implementation& stages = *implementation_;
  const bool tracked = with_offsets || stages.pre_tokenizer.needs_origins;
  Encoding encoding;
  encoding.ids.reserve(text.size() / 3);
  WordEncoder::Session session(stages.words);
  for (Segment& segment : stages.added.split(AlignedText::from_bytes(text, tracked))) {
    const size_t size = segment.text.text().size();
    if (size == 0) continue;
    if (segment.id >= 0) {
      encoding.ids.push_back(segment.id);
      if (with_offsets) encoding.offsets.push_back(segment.text.origin({0, size}));
      continue;
    }
    Words words{std::move(segment.text), {{0, size}}};
    stages.pre_tokenizer.cut(words);
    if (!stages.pre_tokenizer.byte_level) cut_before_marks(words, stages.words.model());
    const std::string_view whole = words.text.text();
    for (const TextRange& word : words.ranges)
      for (const WordToken& token : session.encode(whole.substr(word.begin, word.end - word.begin))) {
        encoding.ids.push_back(token.id);
        if (with_offsets)
          encoding.offsets.push_back(words.text.origin({word.begin + token.begin, word.begin + token.end}));
      }
  }
  stages.post_processor(encoding, text, stages.tokens, add_special);
  return encoding;
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  return run(text, add_special, false).ids;
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, bool add_special) const {
  return run(text, add_special, true);
}

std::string Tokenizer::decode(const std::vector<int64_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  for (int64_t id : ids) {
    if (skip_special && is_special(id)) continue;
    std::string token = token_of(id);
    if (!token.empty()) tokens.push_back(std::move(token));
  }
  std::string text;
  for (const std::string& part : implementation_->decoder(std::move(tokens))) text += part;
  return text;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(implementation_->tokens.size()); }

int64_t Tokenizer::id_of(std::string_view token) const {
  for (const Vocabulary* vocabulary : {&implementation_->added_ids, &implementation_->vocabulary()})
    if (const auto found = vocabulary->find(token); found != vocabulary->end()) return found->second;
  return -1;
}

std::string Tokenizer::token_of(int64_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  return implementation_->tokens[static_cast<size_t>(id)];
}

bool Tokenizer::is_special(int64_t id) const { return implementation_->special.contains(id); }

}  // namespace efface
