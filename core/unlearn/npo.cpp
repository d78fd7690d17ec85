// NPO (Zhang et al. 2024), negative preference optimisation against the frozen model, with a retain term:
//   L = gamma * mean over forget rows of -(2/beta) log sigmoid(-beta (log pi - log pi_ref)) + alpha * retain
//   term
// log pi sums over the whole answer, so beta is in nats of an answer.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/forget_and_retain.hpp"
#include "core/unlearn/losses.hpp"

namespace efface {
namespace {

class Npo : public ForgetAndRetain {
 public:
  Npo(const MethodArgs& args, const MethodChoices& choices)
      : ForgetAndRetain(RowRole::forget, args, choices), beta_(args.at("beta")) {}

  std::string name() const override { return "NPO"; }

 protected:
  bool compares_with_frozen() const override { return true; }
  at::Tensor forget_loss(const RowScores& rows, const ReferenceCache& reference) const override {
    const auto log_p = rows.sequence_log_probabilities(RowRole::forget);
    if (!log_p.defined()) return {};
    return npo_loss(log_p, rows.reference_log_probabilities(RowRole::forget, reference), beta_);
  }

 private:
  double beta_;
};

}  // namespace

MethodDescription describe_npo() {
  MethodDescription method;
  method.name = "NPO";
  method.summary = "negative preference optimisation of the forget answers against the frozen model";
  method.defaults = {{"beta", 0.1}};
  method.help = {{"beta", "in nats of the whole answer: ~1 for answers of 1-3 tokens, .1 for ~50"}};
  describe_forget_and_retain(method, 1, "weight of the forget term");
  method.make = make_without_window<Npo>;
  return method;
}

}  // namespace efface
