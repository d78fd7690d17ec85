// NPO (Zhang et al. 2024), negative preference optimisation against the frozen model, with a retain term:
//   L = gamma * mean over forget rows of -(2/beta) log sigmoid(-beta (log pi - log pi_ref)) + alpha * retain
//   term
// log pi sums over the whole answer, so beta is in nats of an answer.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/losses.hpp"
#include "core/unlearn/retain_term.hpp"

namespace efface {
namespace {

class Npo : public Method {
 public:
  Npo(const MethodArgs& args, const MethodChoices& choices)
      : gamma_(args.at("gamma")), beta_(args.at("beta")), retain_(args, choices) {}

  std::string name() const override { return "NPO"; }
  TrainedParameters trains() const override { return TrainedParameters::lora; }
  std::vector<RowRole> roles() const override { return retain_.roles_with(RowRole::forget); }
  std::vector<std::string> parts() const override { return {"forget", "retain"}; }
  std::map<RowRole, ReferenceNeeds> needs() const override {
    std::map<RowRole, ReferenceNeeds> needs;
    needs[RowRole::forget].log_probability = true;
    retain_.add_needs(needs);
    return needs;
  }

  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override {
    const RowScores rows(model, batch);
    LossSum loss;
    if (const auto log_p = rows.sequence_log_probabilities(RowRole::forget); log_p.defined())
      loss.add("forget", gamma_,
               npo_loss(log_p, rows.reference_log_probabilities(RowRole::forget, reference), beta_),
               batch.global_rows.at(RowRole::forget));
    retain_.add(loss, rows, batch, reference);
    return loss.take();
  }

 private:
  double gamma_, beta_;
  RetainTerm retain_;
};

}  // namespace

MethodDescription describe_npo() {
  MethodDescription method;
  method.name = "NPO";
  method.summary = "negative preference optimisation of the forget answers against the frozen model";
  method.defaults = {{"gamma", 1}, {"beta", 0.1}};
  method.help = {{"gamma", "weight of the forget term"},
                 {"beta", "in nats of the whole answer: ~1 for answers of 1-3 tokens, .1 for ~50"}};
  RetainTerm::describe(method);
  method.make = [](const MethodArgs& args, const MethodChoices& choices, LayerWindow) {
    return std::make_unique<Npo>(args, choices);
  };
  return method;
}

}  // namespace efface
