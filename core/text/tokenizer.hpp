// Text to ids and back, as Hugging Face's tokenizer.json says. An immutable value; safe to share
// between threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/aligned_text.hpp"

namespace efface {

/// Ids and, per id, the bytes of the text it stands for: whole characters, so that tokens that share a
/// character share its bytes; an empty range for what the post-processor adds.
struct Encoding {
  std::vector<int64_t> ids;
  std::vector<TextRange> offsets;
};

class Tokenizer {
 public:
  /// Reads `folder`/tokenizer.json. Throws Error(model) naming file and field when something is not
  /// supported.
  static Tokenizer load(const std::filesystem::path& folder);

  /// add_special: also what the post-processor adds (BOS, ...). Special tokens *in the text* are recognised.
  std::vector<int64_t> encode(std::string_view text, bool add_special = false) const;
  Encoding encode_with_offsets(std::string_view text, bool add_special = false) const;
  std::string decode(const std::vector<int64_t>& ids, bool skip_special = false) const;

  int64_t vocab_size() const;
  /// -1 when there is no such token.
  int64_t id_of(std::string_view token) const;
  std::string token_of(int64_t id) const;
  bool is_special(int64_t id) const;

 private:
  struct Implementation;
  Encoding run(std::string_view text, bool add_special, bool with_offsets) const;
  std::shared_ptr<const Implementation> implementation_;
};

}  // namespace efface
