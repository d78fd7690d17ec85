#include "core/storage/merged_json.hpp"

namespace efface {

nlohmann::json merged_over_ranks(const Communicator& group, const nlohmann::json& mine) {
  nlohmann::json merged = nlohmann::json::object();
  for (int rank = 0; rank < group.size(); ++rank)
    merged.update(nlohmann::json::parse(group.broadcast(rank == group.rank() ? mine.dump() : "", rank)),
                  /*merge_objects=*/true);
  return merged;
}

}  // namespace efface
