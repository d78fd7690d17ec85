// What the `answers` stage wrote.
#pragma once

#include <filesystem>

#include "recipes/training_rows.hpp"

namespace efface {

OwnAnswers read_own_answers(const std::filesystem::path& folder);

}  // namespace efface
