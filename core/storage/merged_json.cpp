#include "core/storage/merged_json.hpp"

namespace efface {

nlohmann::json merged_over_ranks(const Communicator& group, const nlohmann::json& mine) {
  nlohmann::json merged = nlohmann::json::object();
  for (int rank = 0; rank < group.size(); ++rank)
    merged.update(nlohmann::json::parse(group.broadcast(rank == group.rank() ? mine.dump() : "", rank)),
                  /*merge_objects=*/true);
  return merged;
}

std::vector<std::string> errors_of_ranks(const Communicator& group, const std::function<void()>& action) {
  nlohmann::json mine = nlohmann::json::object();
  try {
    action();
  } catch (const std::exception& error) {
    mine[std::to_string(group.rank())] = error.what();
  }
  const nlohmann::json all = merged_over_ranks(group, mine);
  std::vector<std::string> errors;
  for (int rank = 0; rank < group.size(); ++rank)
    if (const auto found = all.find(std::to_string(rank)); found != all.end()) errors.push_back(*found);
  return errors;
}

}  // namespace efface
