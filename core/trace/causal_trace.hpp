// Causal tracing (ROME, Meng et al. 2022) for Llama-like models, and KUDA's choice of layers.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/model/transformer.hpp"
#include "core/text/tokenizer.hpp"

namespace efface {

struct TraceFact {
  std::string prompt;   ///< "The capital of France is", special tokens written out if any
  std::string subject;  ///< "France", inside the prompt
};

struct TraceOptions {
  int64_t draws = 10;              ///< noise draws, the same for every patch of a fact
  double noise_scale = 3;          ///< in standard deviations of all subjects' embedding entries
  int restore_window = 0;          ///< layers restored together; 0: round(10 L / 48) made odd
  int unlearning_window = 3;       ///< layers KUDA trains
  std::vector<int> exclude = {0};  ///< windows that contain these layers are not chosen
  uint64_t seed = 0;
};

struct TraceResult {
  std::vector<double> effect;                 ///< [layers] AIE(l), mean over facts and draws
  std::vector<double> effect_standard_error;  ///< [layers] over facts
  double clean_probability = 0, corrupted_probability = 0;
  int64_t facts_used = 0, facts_unknown = 0;
  int window_begin = 0, window_end = 0;              ///< chosen: argmax of the window sums, exclusions kept
  int unrestricted_begin = 0, unrestricted_end = 0;  ///< the argmax without exclusions
  int restore_window = 0;
};

/// Facts are dealt over data ranks; the result is the same on every rank and, up to rounding, every mesh. A
/// fact whose answer the clean model does not put first is left out and counted where `answers` are given
/// (same order; may be empty); what counts is the answer's first token, after a space where the prompt does
/// not end in one. progress() counts pairs of fact and layer of this data rank. Throws Error(data) when a
/// subject is not inside its prompt, or no fact is known. Collective over the model's mesh.
TraceResult causal_trace(const Transformer& model, const Tokenizer& tokenizer,
                         const std::vector<TraceFact>& facts, const std::vector<std::string>& answers,
                         const TraceOptions& options,
                         const std::function<void(int64_t done, int64_t total)>& progress = {});

/// round(10 L / 48) made odd.
int default_restore_window(int layers);
/// The `width` layers restored around `layer`: [begin, end), centred, clipped at the ends.
std::pair<int, int> restored_layers(int layer, int layers, int width);
/// [begin, end) of the `width` consecutive layers with the largest sum of `effect` among those without a
/// layer of `exclude`; the first of equals. Throws Error(recipe) when there is none.
std::pair<int, int> best_window(const std::vector<double>& effect, int width,
                                const std::vector<int>& exclude);

}  // namespace efface
