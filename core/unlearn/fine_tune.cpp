// FineTune: L = mean over rows of the row's mean NLL; teaches a model what a benchmark then unlearns. Its
// rows have the role `retain`. All matrices by default, LoRA when the recipe says so.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/loss_sum.hpp"
#include "core/unlearn/row_scores.hpp"

namespace efface {
namespace {

class FineTune : public Method {
 public:
  std::string name() const override { return "FineTune"; }
  TrainedParameters trains() const override { return TrainedParameters::full; }
  std::vector<RowRole> roles() const override { return {RowRole::retain}; }
  std::vector<std::string> parts() const override { return {"nll"}; }

  LossParts loss(const Transformer& model, const StepBatch& batch, const ReferenceCache&) const override {
    const RowScores rows(model, batch);
    LossSum loss;
    loss.add("nll", 1, rows.mean_nll(RowRole::retain), batch.global_rows.at(RowRole::retain));
    return loss.take();
  }
};

}  // namespace

MethodDescription describe_fine_tune() {
  MethodDescription method;
  method.name = "FineTune";
  method.summary = "plain supervised fine-tuning on the labels";
  method.make = [](const MethodArgs&, const MethodChoices&, LayerWindow) {
    return std::make_unique<FineTune>();
  };
  return method;
}

}  // namespace efface
