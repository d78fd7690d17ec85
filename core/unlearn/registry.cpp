#include <algorithm>

#include "core/model/nearest_name.hpp"
#include "core/unlearn/descriptions.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

[[noreturn]] void fail_unknown(const std::string& what, const std::string& word,
                               const std::vector<std::string>& known) {
  throw Error(ErrorClass::recipe, what + " \"" + word + "\" is not known",
              known.empty() ? "there is none" : "did you mean \"" + nearest_name(word, known) + "\"?");
}

std::vector<std::string> argument_names(const MethodDescription& method) {
  std::vector<std::string> names;
  for (const auto& entry : method.defaults) names.push_back(entry.first);
  for (const auto& entry : method.choices_default) names.push_back(entry.first);
  return names;
}

}  // namespace

std::string role_name(RowRole role) {
  switch (role) {
    case RowRole::forget:
      return "forget";
    case RowRole::safe:
      return "safe";
    case RowRole::retain:
      return "retain";
    case RowRole::retain_kl:
      return "retain_kl";
  }
  return "";
}

const std::vector<MethodDescription>& methods() {
  static const std::vector<MethodDescription> all = {
      describe_nsru(),    describe_kuda(),    describe_grad_ascent(), describe_grad_diff(), describe_npo(),
      describe_sim_npo(), describe_idk_dpo(), describe_rmu(),         describe_fine_tune(),
  };
  return all;
}

const MethodDescription& find_method(const std::string& name) {
  std::vector<std::string> names;
  for (const MethodDescription& method : methods()) {
    if (method.name == name) return method;
    names.push_back(method.name);
  }
  fail_unknown("method", name, names);
}

std::unique_ptr<Method> make_method(const std::string& name, const MethodArgs& args,
                                    const MethodChoices& choices, LayerWindow window) {
  const MethodDescription& method = find_method(name);
  MethodArgs all_args = method.defaults;
  for (const auto& [key, value] : args) {
    if (!all_args.contains(key)) fail_unknown(name + "'s method_args", key, argument_names(method));
    all_args[key] = value;
  }
  MethodChoices all_choices = method.choices_default;
  for (const auto& [key, value] : choices) {
    if (!all_choices.contains(key)) fail_unknown(name + "'s method_args", key, argument_names(method));
    const auto& allowed = method.choices.at(key);
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
      fail_unknown(name + "'s " + key, value, allowed);
    all_choices[key] = value;
  }
  if (method.needs_window && (window.begin < 0 || window.end <= window.begin))
    throw Error(ErrorClass::recipe, name + " needs a window of layers and was given none",
                "name the layers in the recipe, or let the trace stage choose them");
  return method.make(all_args, all_choices, window);
}

}  // namespace efface
