// SimNPO (Fan et al. 2024): NPO without a reference, by the mean NLL of a token, with a retain term:
//   L = gamma * mean over forget rows of -(2/beta) log sigmoid(beta (nll/|y| - delta)) + alpha * retain term
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/losses.hpp"
#include "core/unlearn/retain_term.hpp"

namespace efface {
namespace {

class SimNpo : public Method {
 public:
  SimNpo(const MethodArgs& args, const MethodChoices& choices)
      : gamma_(args.at("gamma")), beta_(args.at("beta")), delta_(args.at("delta")), retain_(args, choices) {}

  std::string name() const override { return "SimNPO"; }
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
      loss.add("forget", gamma_, sim_npo_loss(nll, beta_, delta_), batch.global_rows.at(RowRole::forget));
    retain_.add(loss, rows, batch, reference);
    return loss.take();
  }

 private:
  double gamma_, beta_, delta_;
  RetainTerm retain_;
};

}  // namespace

MethodDescription describe_sim_npo() {
  MethodDescription method;
  method.name = "SimNPO";
  method.summary = "NPO without a reference model, normalised by the answer's length";
  method.defaults = {{"gamma", 0.125}, {"beta", 4.5}, {"delta", 0}};
  method.help = {{"gamma", "weight of the forget term"},
                 {"beta", "in nats of one token"},
                 {"delta", "margin on the mean NLL"}};
  RetainTerm::describe(method);
  method.make = [](const MethodArgs& args, const MethodChoices& choices, LayerWindow) {
    return std::make_unique<SimNpo>(args, choices);
  };
  return method;
}

}  // namespace efface
