#include "core/storage/run_files.hpp"

#include <algorithm>
#include <fstream>

#include "core/storage/merged_json.hpp"
#include "core/storage/run_directory.hpp"

namespace efface {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kChunk = size_t{4} << 20;

/// {"bytes", "crc32c"}, or {"error"} for what cannot be read.
Json describe(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::vector<char> buffer(kChunk);
  uint64_t bytes = 0;
  uint32_t checksum = 0;
  while (stream.read(buffer.data(), static_cast<std::streamsize>(kChunk)) || stream.gcount() > 0) {
    const auto count = static_cast<size_t>(stream.gcount());
    checksum = crc32c(buffer.data(), count, checksum);
    bytes += count;
  }
  if (!stream.is_open() || stream.bad()) return {{"error", "cannot be read"}};
  return {{"bytes", bytes}, {"crc32c", checksum}};
}

/// Each file of `names` by one rank, the results on all.
Json describe_all(const fs::path& folder, const std::vector<std::string>& names, const Communicator& world) {
  Json mine = Json::object();
  for (auto i = static_cast<size_t>(world.rank()); i < names.size(); i += static_cast<size_t>(world.size()))
    mine[names[i]] = describe(folder / names[i]);
  return merged_over_ranks(world, mine);
}

bool stays_inside(const std::string& name) {
  const fs::path path = fs::path(name).lexically_normal();
  return !path.empty() && !path.is_absolute() && *path.begin() != "..";
}

std::string difference(const fs::path& file, const Json& then, const Json& now) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return "is missing";
  if (now.contains("error")) return now.at("error");
  if (now.at("bytes") != then.at("bytes"))
    return "has " + now.at("bytes").dump() + " bytes, not " + then.at("bytes").dump();
  return now == then ? "" : "is damaged: the checksum does not match";
}

}  // namespace

Json list_files(const fs::path& folder, const std::vector<std::string>& except, const Communicator& world) {
  Json names = Json::array();
  if (world.rank() == 0)
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::end(entry); ++entry) {
      const std::string name = fs::relative(entry->path(), folder).generic_string();
      if (std::find(except.begin(), except.end(), name) != except.end())
        entry.disable_recursion_pending();
      else if (entry->is_regular_file())
        names.push_back(name);
    }
  names = Json::parse(world.broadcast(names.dump(), 0));
  return describe_all(folder, names.get<std::vector<std::string>>(), world);
}

std::map<std::string, std::string> damaged_files(const fs::path& folder, const Json& listed,
                                                 const Communicator& world) {
  std::map<std::string, std::string> damaged;
  std::vector<std::string> names;
  for (const auto& [name, then] : listed.items()) {
    if (stays_inside(name))
      names.push_back(name);
    else
      damaged[name] = "is outside of its folder";
  }
  const Json now = describe_all(folder, names, world);
  // The root's look at the folder decides, on a file system that others may see later.
  for (const std::string& name : names)
    if (const auto what = difference(folder / name, listed.at(name), now.at(name)); !what.empty())
      damaged[name] = what;
  return Json::parse(world.broadcast(Json(damaged).dump(), 0)).get<std::map<std::string, std::string>>();
}

}  // namespace efface
