// Text to ids and back, as Hugging Face's tokenizer.json says. An immutable value; safe to share
// between threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace efface {

class Tokenizer {
 public:
  /// Reads `folder`/tokenizer.json. Throws Error(model) naming file and field when something is not
  /// supported.
  static Tokenizer load(const std::filesystem::path& folder);

  /// add_special: also what the post-processor adds (BOS, ...). Special tokens *in the text* are recognised.
  std::vector<int64_t> encode(std::string_view text, bool add_special = false) const;
  std::string decode(const std::vector<int64_t>& ids, bool skip_special = false) const;

  int64_t vocab_size() const;
  /// -1 when there is no such token.
  int64_t id_of(std::string_view token) const;
  std::string token_of(int64_t id) const;
  bool is_special(int64_t id) const;

 private:
  struct Implementation;
  std::shared_ptr<const Implementation> implementation_;
};

}  // namespace efface
