// What tests share: the world group, the shared data folder, and closeness in the sense of norms.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "distributed/communicator.hpp"

namespace efface::testing {

const Communicator& world();

/// ../shared/data beside the project, or $EFFACE_SHARED_DATA; empty where it is not there.
inline std::filesystem::path shared_data() {
  if (const char* set = std::getenv("EFFACE_SHARED_DATA")) return set;
  return "";
}

/// ||a - b||_F / max(||b||_F, tiny)
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  auto x = a.to(at::kDouble), y = b.to(at::kDouble);
  return (x - y).norm().item<double>() / std::max(1e-300, y.norm().item<double>());
}

}  // namespace efface::testing

/// Skips, visibly, a test that needs the shared data where it is not there.
#define EFFACE_NEEDS_SHARED_DATA(variable)                                 \
  const std::filesystem::path variable = ::efface::testing::shared_data(); \
  if (variable.empty() || !std::filesystem::exists(variable)) GTEST_SKIP() << "shared data not present"

/// Skips a test that is for some numbers of ranks only.
#define EFFACE_NEEDS_RANKS(condition) \
  if (!(condition)) GTEST_SKIP() << "not for " << ::efface::testing::world().size() << " ranks"
