// "Did you mean ...?"
#pragma once

#include <string>
#include <vector>

namespace efface {

/// The candidate with the smallest edit distance to `name`, the first of equals; empty without candidates.
std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace efface
