#include "core/model/module.hpp"

#include <algorithm>
#include <cstdio>

#include "core/model/nearest_name.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

bool is_attention(Projection projection) {
  return input_of(projection) == Input::qkv || projection == Projection::o;
}

}  // namespace

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
  std::string name = "model.layers.";
  name += std::to_string(module.layer);
  name += is_attention(module.projection) ? ".self_attn." : ".mlp.";
  if (module.expert != kDense) name.append("experts.").append(std::to_string(module.expert)).append(".");
  return name + projection_name(module.projection);
}

std::optional<ModuleId> module_from_name(const std::string& name) {
  ModuleId module;
  if (std::sscanf(name.c_str(), "model.layers.%d.", &module.layer) != 1) return std::nullopt;
  const auto experts = name.find(".experts.");
  if (experts != std::string::npos &&
      std::sscanf(name.c_str() + experts, ".experts.%d.", &module.expert) != 1)
    return std::nullopt;
  for (const Projection projection : kProjections) {
    module.projection = projection;
    if (module_name(module) == name) return module;
  }
  return std::nullopt;
}

std::string input_name(const InputId& input) {
  static constexpr const char* names[] = {"qkv", "o", "gate_up", "down"};
  std::string name = std::to_string(input.layer);
  name.append(".").append(names[static_cast<int>(input.input)]);
  if (input.expert != kDense) name.append(".").append(std::to_string(input.expert));
  return name;
}

std::optional<InputId> input_from_name(const std::string& name) {
  InputId id;
  int last = 0;
  if (std::sscanf(name.c_str(), "%d.", &id.layer) != 1) return std::nullopt;
  if (std::sscanf(name.c_str(), "%*d.%*[a-z_].%d", &last) == 1) id.expert = last;
  for (const Input input : kInputs) {
    id.input = input;
    if (input_name(id) == name) return id;
  }
  return std::nullopt;
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

std::vector<ModuleId> modules_of(const ModelConfig& config, int begin, int end,
                                 const std::vector<Projection>& projections) {
  std::vector<ModuleId> modules;
  for (const ModuleId& module : modules_of(begin, end, projections)) {
    const int64_t experts = is_attention(module.projection) ? 0 : config.kind(module.layer).experts;
    if (experts == 0) modules.push_back(module);
    for (int expert = 0; expert < experts; ++expert)
      modules.push_back({module.layer, module.projection, expert});
  }
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
