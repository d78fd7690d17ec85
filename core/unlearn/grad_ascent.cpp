// GradAscent: L = -mean over forget rows of the row's mean NLL. Unbounded below: few steps, small rates.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/loss_sum.hpp"
#include "core/unlearn/row_scores.hpp"

namespace efface {
namespace {

class GradAscent : public Method {
 public:
  std::string name() const override { return "GradAscent"; }
  TrainedParameters trains() const override { return TrainedParameters::lora; }
  std::vector<RowRole> roles() const override { return {RowRole::forget}; }
  std::vector<std::string> parts() const override { return {"forget"}; }

  LossParts loss(const Transformer& model, const StepBatch& batch, const ReferenceCache&) const override {
    const RowScores rows(model, batch);
    LossSum loss;
    loss.add("forget", 1, -rows.mean_nll(RowRole::forget), batch.global_rows.at(RowRole::forget));
    return loss.take();
  }
};

}  // namespace

MethodDescription describe_grad_ascent() {
  MethodDescription method;
  method.name = "GradAscent";
  method.summary = "raises the NLL of the forget answers, nothing else";
  method.make = [](const MethodArgs&, const MethodChoices&, LayerWindow) {
    return std::make_unique<GradAscent>();
  };
  return method;
}

}  // namespace efface
