// The four normal forms of Unicode (UAX 15), keeping track of where characters came from.
#pragma once

#include "core/text/aligned_text.hpp"

namespace efface {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// `text` in the normal form. A character made from several has the origin of the first of them in canonical
/// order; of those made from one character all have that one's. (As Hugging Face's library counts.)
AlignedText unicode_normalize(const AlignedText& text, NormalForm form);

}  // namespace efface
