// GradDiff (Liu et al. 2022): L = -gamma * mean over forget rows of NLL + alpha * retain term.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/retain_term.hpp"

namespace efface {
namespace {

class GradDiff : public Method {
 public:
  GradDiff(const MethodArgs& args, const MethodChoices& choices)
      : gamma_(args.at("gamma")), retain_(args, choices) {}

  std::string name() const override { return "GradDiff"; }
  TrainedParameters trains() const override { return TrainedParameters::lora; }
  std::vector<RowRole> roles() const override { return retain_.roles_with(RowRole::forget); }
  std::vector<std::string> parts() const override { return {"forget", "retain"}; }
  std::map<RowRole, ReferenceNeeds> needs() const override {
    std::map<RowRole, ReferenceNeeds> needs;
    retain_.add_needs(needs);
    return needs;
  }

  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override {
    const RowScores rows(model, batch);
    LossSum loss;
    if (const auto nll = rows.mean_nll(RowRole::forget); nll.defined())
      loss.add("forget", gamma_, -nll, batch.global_rows.at(RowRole::forget));
    retain_.add(loss, rows, batch, reference);
    return loss.take();
  }

 private:
  double gamma_;
  RetainTerm retain_;
};

}  // namespace

MethodDescription describe_grad_diff() {
  MethodDescription method;
  method.name = "GradDiff";
  method.summary = "raises the NLL of the forget answers, lowers that of retain rows";
  method.defaults = {{"gamma", 1}};
  method.help = {{"gamma", "weight of the forget term"}};
  RetainTerm::describe(method);
  method.make = [](const MethodArgs& args, const MethodChoices& choices, LayerWindow) {
    return std::make_unique<GradDiff>(args, choices);
  };
  return method;
}

}  // namespace efface
