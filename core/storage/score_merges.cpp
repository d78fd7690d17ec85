#include "core/storage/score_merges.hpp"

#include <algorithm>
#include <tuple>
#include <unordered_set>

namespace efface {

nlohmann::ordered_json score_merges(const std::vector<std::string_view>& texts,
                                    const std::vector<float>& scores, const std::vector<bool>& made) {
  const std::unordered_set<std::string_view> known(texts.begin(), texts.end());
  std::vector<std::tuple<float, size_t, size_t>> found;  // minus the score, the token, where it is cut
  for (size_t id = 0; id < texts.size(); ++id)
    for (size_t cut = 1; made[id] && cut < texts[id].size(); ++cut)
      if (known.count(texts[id].substr(0, cut)) && known.count(texts[id].substr(cut)))
        found.emplace_back(-scores[id], id, cut);
  std::sort(found.begin(), found.end());
  auto merges = nlohmann::ordered_json::array();
  for (const auto& [score, id, cut] : found)
    merges.push_back(nlohmann::ordered_json::array({texts[id].substr(0, cut), texts[id].substr(cut)}));
  return merges;
}

}  // namespace efface
