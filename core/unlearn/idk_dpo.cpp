// IdkDPO, OpenUnlearning's "DPO" on TOFU's idk data: direct preference optimisation (Rafailov et al. 2023)
// with the safe response as the winner and the undesired answer to the same question as the loser, and a
// retain term:
//   L = gamma * mean over pairs of -(2/beta) log sigmoid(beta ((log pi - log pi_ref)(safe response)
//                                                            - (log pi - log pi_ref)(undesired answer)))
//       + alpha * retain term
// log pi sums over the whole answer, so beta is in nats of an answer.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/losses.hpp"
#include "core/unlearn/retain_term.hpp"

namespace efface {
namespace {

class IdkDpo : public Method {
 public:
  IdkDpo(const MethodArgs& args, const MethodChoices& choices)
      : gamma_(args.at("gamma")), beta_(args.at("beta")), retain_(args, choices) {}

  std::string name() const override { return "IdkDPO"; }
  TrainedParameters trains() const override { return TrainedParameters::lora; }
  bool reads_pairs() const override { return true; }
  std::vector<RowRole> roles() const override { return retain_.roles_with(RowRole::safe); }
  std::vector<std::string> parts() const override { return {"forget", "retain"}; }
  std::map<RowRole, ReferenceNeeds> needs() const override {
    std::map<RowRole, ReferenceNeeds> needs;
    needs[RowRole::safe].log_probability = true;
    retain_.add_needs(needs);
    return needs;
  }

  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override {
    const RowScores rows(model, batch);
    LossSum loss;
    const auto chosen = rows.log_ratios(RowRole::safe, reference, Answer::chosen);
    const auto rejected = rows.log_ratios(RowRole::safe, reference, Answer::rejected);
    if (chosen.defined())
      loss.add("forget", gamma_, dpo_loss(chosen, rejected, beta_), batch.global_rows.at(RowRole::safe));
    retain_.add(loss, rows, batch, reference);
    return loss.take();
  }

 private:
  double gamma_, beta_;
  RetainTerm retain_;
};

}  // namespace

MethodDescription describe_idk_dpo() {
  MethodDescription method;
  method.name = "IdkDPO";
  method.summary = "prefers the safe response to the undesired answer of the same question (DPO)";
  method.defaults = {{"gamma", 1}, {"beta", 0.1}};
  method.help = {{"gamma", "weight of the preference term"},
                 {"beta", "in nats of the whole answer: ~1 for answers of 1-3 tokens, .1 for ~50"}};
  RetainTerm::describe(method);
  method.make = [](const MethodArgs& args, const MethodChoices& choices, LayerWindow) {
    return std::make_unique<IdkDpo>(args, choices);
  };
  return method;
}

}  // namespace efface
