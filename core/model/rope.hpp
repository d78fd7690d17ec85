// Rotary position embeddings (Su et al. 2021) and the ways their frequencies are stretched to longer
// contexts.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace efface {

enum class RopeScaling { none, linear, dynamic, yarn, longrope, llama3 };

struct RopeConfig {
  RopeScaling scaling = RopeScaling::none;
  double theta = 10000;
  double partial = 1;              ///< share of a head's features that turn, from its front
  double factor = 1;               ///< how many times longer than trained for; all but longrope
  int64_t original_positions = 0;  ///< trained for; dynamic, yarn, longrope, llama3
  double amplitude = 1;            ///< cos and sin are multiplied by it; yarn, longrope
  double low_frequency_factor = 1, high_frequency_factor = 4;  ///< llama3
  double beta_fast = 32, beta_slow = 1;                        ///< yarn: turns over original_positions ...
  bool truncate = true;  ///< ... between which frequencies go over from kept to divided; rounded outwards
  std::vector<double> short_factors = {}, long_factors = {};  ///< longrope: [rotary_dim / 2], rows up to
                                                              ///< original_positions and longer ones

  /// Features of a head that turn: even, at most head_dim.
  int64_t rotary_dim(int64_t head_dim) const;
  /// Whether the frequencies depend on how long a row is.
  bool depends_on_length() const;
  /// Whether, when a row grows to `length`, keys that were cached before have to be turned anew.
  bool recomputes_cache_at(int64_t length) const;
};

/// Angle a position, [rotary_dim / 2] in `options`' dtype (fp32 or fp64), of a row of `length` tokens; in the
/// order of operations of transformers, so that far positions agree too.
at::Tensor rope_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length,
                            const at::TensorOptions& options);

/// Angles of RoPE at each token: cos and sin [tokens, rotary_dim / 2].
struct RotaryTable {
  at::Tensor cos, sin;
};
/// `positions` [tokens] of rows laid end to end, row r being tokens [offsets[r], offsets[r + 1]); a row's
/// length is its last position + 1. fp32, or fp64 for an fp64 model's `dtype`.
RotaryTable make_rotary_table(const RopeConfig& rope, int64_t head_dim, const at::Tensor& positions,
                              const std::vector<int64_t>& offsets, at::ScalarType dtype);

}  // namespace efface
