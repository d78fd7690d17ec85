// Names: the linear layers of a decoder, and the distinct inputs they read.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <vector>

#include "core/model/config.hpp"

namespace efface {

enum class Projection { q, k, v, o, gate, up, down };
inline constexpr Projection kProjections[] = {Projection::q,   Projection::k,    Projection::v,
                                              Projection::o,   Projection::gate, Projection::up,
                                              Projection::down};

/// q, k and v read one input; so do gate and up.
enum class Input { qkv, o, gate_up, down };
inline constexpr Input kInputs[] = {Input::qkv, Input::o, Input::gate_up, Input::down};

/// `expert` of a mixture's gate, up and down; kDense of every other linear.
inline constexpr int kDense = -1;

struct ModuleId {
  int layer = 0;
  Projection projection = Projection::q;
  int expert = kDense;
  auto operator<=>(const ModuleId&) const = default;
};

struct InputId {
  int layer = 0;
  Input input = Input::qkv;
  int expert = kDense;  ///< whose tokens alone are seen
  auto operator<=>(const InputId&) const = default;
};

Input input_of(Projection projection);
inline InputId input_of(const ModuleId& module) {
  return {module.layer, input_of(module.projection), module.expert};
}
/// q, k, v, gate, up: out features over tensor ranks, input replicated. o, down: in features, input sharded.
bool is_row_parallel(Projection projection);
bool is_sharded(Input input);

std::string projection_name(Projection projection);  ///< "q_proj"
Projection projection_from_name(
    const std::string& name);  ///< throws Error(recipe) with the nearest right name
/// "model.layers.3.mlp.down_proj", "model.layers.3.mlp.experts.5.down_proj": ours, whatever the file calls
/// it.
std::string module_name(const ModuleId& module);
std::optional<ModuleId> module_from_name(const std::string& name);  ///< the inverse
std::string input_name(const InputId& input);  ///< "3.down", "0.qkv", "5.gate_up", "15.o", "3.down.5"
std::optional<InputId> input_from_name(const std::string& name);  ///< the inverse

/// All seven linears, or those named, of layers [begin, end), as if every feed-forward were dense.
std::vector<ModuleId> modules_of(int begin, int end, const std::vector<Projection>& projections);
/// The same of a model's layers: a mixture's gate, up and down are those of each expert.
std::vector<ModuleId> modules_of(const ModelConfig& config, int begin, int end,
                                 const std::vector<Projection>& projections);
/// The distinct inputs of the modules, sorted.
std::vector<InputId> inputs_of(const std::vector<ModuleId>& modules);

}  // namespace efface
