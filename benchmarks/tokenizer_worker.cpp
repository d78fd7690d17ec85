// The tokenizer alone, for benchmarks/tokenizer_speed.py and the tests against Hugging Face's library.
//   tokenizer_worker check FOLDER          each line of standard input, a JSON string, as ids, offsets and
//   decoded text tokenizer_worker time FOLDER FILE      for each line of standard input the seconds that
//   encoding the file takes, and
//                                         how many ids there are
#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/text/stream_decoder.hpp"
#include "core/text/tokenizer.hpp"

namespace {

using efface::Tokenizer;

void check(const Tokenizer& tokenizer) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto text = nlohmann::json::parse(line).get<std::string>();
    const auto [ids, offsets] = tokenizer.encode_with_offsets(text);
    const auto special = tokenizer.encode_with_offsets(text, true);
    nlohmann::json answer{{"ids", ids},
                          {"special", special.ids},
                          {"same", ids == tokenizer.encode(text)},
                          {"decoded", tokenizer.decode(ids)}};
    efface::StreamDecoder stream(tokenizer);
    std::string streamed;
    for (int64_t id : ids) streamed += stream.push(id);
    answer["streamed"] = streamed + stream.finish();
    for (const auto& range : offsets) answer["offsets"].push_back({range.begin, range.end});
    std::cout << answer.dump() << "\n";
  }
}

void time(const Tokenizer& tokenizer, const char* file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto begin = std::chrono::steady_clock::now();
    const size_t count = tokenizer.encode(text).size();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::cout << seconds.count() << " " << count << std::endl;
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const std::string what = count > 2 ? arguments[1] : "";
    if (what == "check" && count == 3)
      check(Tokenizer::load(arguments[2]));
    else if (what == "time" && count == 4)
      time(Tokenizer::load(arguments[2]), arguments[3]);
    else
      throw std::invalid_argument("usage: tokenizer_worker check FOLDER | time FOLDER FILE");
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
