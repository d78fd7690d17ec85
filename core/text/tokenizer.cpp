#include "core/text/tokenizer.hpp"

#include <algorithm>
#include <unordered_set>

#include "core/text/added_tokens.hpp"
#include "core/text/bpe.hpp"
#include "core/text/json_field.hpp"
#include "core/text/tokenizer_stages.hpp"
#include "core/text/utf8.hpp"

namespace efface {
struct Tokenizer::Implementation {
  BytePairEncoder model;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  Decoder decoder;
  std::vector<std::string> tokens;  // by id; empty where there is none
  std::unordered_set<int64_t> special;
  Vocabulary added_ids;
};

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  const nlohmann::json json = parse_json_file(file);
  const JsonField top(json, file);
  auto added =
      json.contains("added_tokens") ? read_added_tokens(top["added_tokens"]) : std::vector<AddedToken>{};

  auto result = std::make_shared<Implementation>(
      Implementation{BytePairEncoder(top["model"]),
                     AddedTokens(std::move(added), make_normalizer(top.optional("normalizer"))),
                     make_pre_tokenizer(top.optional("pre_tokenizer")),
                     make_post_processor(top.optional("post_processor")),
                     make_decoder(top.optional("decoder")),
                     {},
                     {},
                     {}});

  auto name = [&](int64_t id, const std::string& token) {
    if (id < 0 || id > (1 << 24))
      top["model"].fail("id " + std::to_string(id) + " of '" + token + "' is out of range");
    if (id >= static_cast<int64_t>(result->tokens.size())) result->tokens.resize(id + 1);
    result->tokens[id] = token;
  };
  for (const auto& [token, id] : result->model.vocabulary()) name(id, token);
  for (const AddedToken& token : result->added.tokens()) {
    name(token.id, token.content);
    result->added_ids[token.content] = token.id;
    if (token.special) result->special.insert(token.id);
  }
  Tokenizer tokenizer;
  tokenizer.implementation_ = std::move(result);
  return tokenizer;
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  std::vector<Piece> pieces = implementation_->added.split(valid_utf8(text));
  implementation_->pre_tokenizer(pieces);
  std::vector<int64_t> ids;
  ids.reserve(text.size() / 3);
  for (const Piece& piece : pieces) {
    if (piece.id >= 0)
      ids.push_back(piece.id);
    else
      implementation_->model.encode(piece.text, ids);
  }
  return add_special ? implementation_->post_processor(std::move(ids)) : ids;
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
  for (const Vocabulary* vocabulary : {&implementation_->added_ids, &implementation_->model.vocabulary()})
    if (const auto found = vocabulary->find(token); found != vocabulary->end()) return found->second;
  return -1;
}

std::string Tokenizer::token_of(int64_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  return implementation_->tokens[static_cast<size_t>(id)];
}

bool Tokenizer::is_special(int64_t id) const { return implementation_->special.contains(id); }

}  // namespace efface
