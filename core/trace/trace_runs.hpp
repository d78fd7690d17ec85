// The runs of one group of facts: clean, corrupted, and patched around each layer.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/trace/traced_fact.hpp"

namespace efface {

/// What the clean model says at the last position of each fact.
struct CleanAnswers {
  std::vector<int64_t> ids;           ///< the first choice
  std::vector<double> probabilities;  ///< of it
};
CleanAnswers answer_clean(const Transformer& model, const std::vector<TracedFact>& facts);

/// Standard deviation over all embedding entries of all subjects' tokens, about their mean.
double subject_embedding_deviation(const Transformer& model, const std::vector<TracedFact>& facts);

struct CorruptedEffects {
  std::vector<double> corrupted;             ///< [facts] p of the clean answer, mean over draws
  std::vector<std::vector<double>> patched;  ///< [facts][layers] p with the layers around one restored
};
/// Rows are fact by fact, draw by draw, all in one batch. Corrupted hidden states of every layer are kept
/// ([layers, draws * tokens, hidden]), so that a patched run starts at its first restored layer: below it
/// nothing changes. `answers` as answer_clean() gave. done() is called after each layer.
CorruptedEffects run_patched(const Transformer& model, const std::vector<TracedFact>& facts,
                             const std::vector<int64_t>& answers, const TraceOptions& options, double noise,
                             const std::function<void()>& done);

}  // namespace efface
