#include "core/text/regex.hpp"

#include <oniguruma.h>

#include "core/text/utf8.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

const OnigUChar* bytes(const char* text) { return reinterpret_cast<const OnigUChar*>(text); }

std::string message(int status, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length = info ? onig_error_code_to_str(text, status, info) : onig_error_code_to_str(text, status);
  return std::string(reinterpret_cast<const char*>(text), static_cast<size_t>(length));
}

}  // namespace

void initialize_oniguruma() {
  static const int status = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    return onig_initialize(encodings, 1);
  }();
  if (status != ONIG_NORMAL) throw Error(ErrorClass::model, "Oniguruma could not be initialised");
}

struct Regex::Compiled {
  regex_t* handle = nullptr;
  ~Compiled() { onig_free(handle); }
};

Regex::Regex(const std::string& pattern) {
  initialize_oniguruma();
  auto compiled = std::make_shared<Compiled>();
  OnigErrorInfo info;
  const int status =
      onig_new(&compiled->handle, bytes(pattern.data()), bytes(pattern.data() + pattern.size()),
               ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_ONIGURUMA, &info);
  if (status != ONIG_NORMAL)
    throw Error(ErrorClass::model, "regular expression '" + pattern + "': " + message(status, &info));
  compiled_ = std::move(compiled);
}

std::vector<TextRange> Regex::find_all(std::string_view text) const {
  std::vector<TextRange> matches;
  const auto* begin = bytes(text.data());
  const auto* end = begin + text.size();
  std::unique_ptr<OnigRegion, void (*)(OnigRegion*)> region(onig_region_new(),
                                                            [](OnigRegion* r) { onig_region_free(r, 1); });
  size_t from = 0;
  while (from <= text.size()) {
    const int found =
        onig_search(compiled_->handle, begin, end, begin + from, end, region.get(), ONIG_OPTION_NONE);
    if (found == ONIG_MISMATCH) break;
    if (found < 0) throw Error(ErrorClass::data, "regular expression failed: " + message(found, nullptr));
    const TextRange match{static_cast<size_t>(region->beg[0]), static_cast<size_t>(region->end[0])};
    const bool empty_again =
        match.begin == match.end && !matches.empty() && matches.back().end == match.begin;
    if (!empty_again) matches.push_back(match);
    from = match.end;
    if (match.begin == match.end) {
      if (from >= text.size()) break;
      from += code_point_length(text[from]);
    }
  }
  return matches;
}

}  // namespace efface
