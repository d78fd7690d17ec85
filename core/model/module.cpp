#include "core/model/module.hpp"

#include <algorithm>

#include "core/model/nearest_name.hpp"
#include "distributed/error.hpp"

namespace efface {
Input input_of(Projection projection) {
  switch (projection) {
    case Projection::q:
    case Projection::k:
    case Projection::v:
      return Input::qkv;
    case Projection::o:
      return Input::o;
    case Projection::gate:
    case Projection::up:
      return Input::gate_up;
    case Projection::down:
      return Input::down;
  }
  return Input::qkv;
}

bool is_row_parallel(Projection projection) {
  return projection == Projection::o || projection == Projection::down;
}
bool is_sharded(Input input) { return input == Input::o || input == Input::down; }

std::string projection_name(Projection projection) {
  static constexpr const char* names[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                          "gate_proj", "up_proj", "down_proj"};
  return names[static_cast<int>(projection)];
}

Projection projection_from_name(const std::string& name) {
  for (Projection projection : kProjections)
    if (projection_name(projection) == name) return projection;
  std::vector<std::string> names;
  for (Projection projection : kProjections) names.push_back(projection_name(projection));
  throw Error(ErrorClass::recipe, "no linear layer is called \"" + name + "\"",
              "did you mean " + nearest_name(name, names) + "?");
}

std::string module_name(const ModuleId& module) {
  const char* block =
      input_of(module.projection) == Input::qkv || module.projection == Projection::o ? "self_attn" : "mlp";
  return "model.layers." + std::to_string(module.layer) + "." + block + "." +
         projection_name(module.projection);
}

std::string input_name(const InputId& input) {
  static constexpr const char* names[] = {"qkv", "o", "gate_up", "down"};
  return std::to_string(input.layer) + "." + names[static_cast<int>(input.input)];
}

std::vector<ModuleId> modules_of(int begin, int end, const std::vector<Projection>& projections) {
  std::vector<ModuleId> modules;
  for (int layer = begin; layer < end; ++layer)
    for (Projection projection : kProjections)
      if (projections.empty() ||
          std::find(projections.begin(), projections.end(), projection) != projections.end())
        modules.push_back({layer, projection});
  return modules;
}

std::vector<InputId> inputs_of(const std::vector<ModuleId>& modules) {
  std::vector<InputId> inputs;
  for (const ModuleId& module : modules) inputs.push_back(input_of(module));
  std::sort(inputs.begin(), inputs.end());
  inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
  return inputs;
}

}  // namespace efface
