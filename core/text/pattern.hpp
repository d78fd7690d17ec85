// {"String": ...} or {"Regex": ...}, as normalizers, pre-tokenizers and decoders give their patterns.
#pragma once

#include "core/text/json_field.hpp"
#include "core/text/regex.hpp"

namespace efface {

inline Regex read_pattern(const JsonField& field) {
  if (field.has("String")) return Regex::literal(field["String"].text());
  return Regex(field["Regex"].text());
}

}  // namespace efface
