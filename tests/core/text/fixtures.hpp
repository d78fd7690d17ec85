// Small tokenizers for the tests of this room and of those that need one.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/text/tokenizer.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface::testing {

inline Tokenizer load_tokenizer(const nlohmann::json& tokenizer) {
  const TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", tokenizer.dump());
  return Tokenizer::load(folder.path());
}

inline nlohmann::json tokenizer_cases() {
  const auto file = std::filesystem::path(__FILE__).parent_path() / "fixtures/tokenizer_cases.json";
  return nlohmann::json::parse(std::ifstream(file));
}

/// The tokenizer of the case called `name` in fixtures/tokenizer_cases.json.
inline Tokenizer case_tokenizer(const std::string& name) {
  const auto all = tokenizer_cases();
  for (const auto& one : all["cases"]) {
    if (one["name"] != name) continue;
    nlohmann::json tokenizer = one["tokenizer"];
    tokenizer["model"] = all["models"][tokenizer["model"].get<size_t>()];
    return load_tokenizer(tokenizer);
  }
  throw std::runtime_error("no case '" + name + "'");
}

}  // namespace efface::testing
