#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/storage/pending_file.hpp"
#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"

namespace efface {

void write_text_file(const std::filesystem::path& file, const std::string& text) {
  PendingFile pending(file);
  pending.append(text.data(), text.size());
  pending.publish();
}

std::string read_text_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (stream && stream.peek() != std::ifstream::traits_type::eof()) text << stream.rdbuf();
  if (!stream.is_open() || stream.bad() || text.bad())
    throw Error(ErrorClass::storage, file.string() + ": cannot be read: " + std::strerror(errno));
  return text.str();
}

std::string hash_text(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char letter : text) hash = (hash ^ static_cast<uint8_t>(letter)) * 0x100000001b3ULL;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string digits(16, '0');
  for (int i = 15; i >= 0; --i, hash >>= 4) digits[i] = kDigits[hash & 15];
  return digits;
}

}  // namespace efface
