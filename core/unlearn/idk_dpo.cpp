// IdkDPO, OpenUnlearning's "DPO" on TOFU's idk data: direct preference optimisation (Rafailov et al. 2023)
// with the safe response as the winner and the undesired answer to the same question as the loser, and a
// retain term:
//   L = gamma * mean over pairs of -(2/beta) log sigmoid(beta ((log pi - log pi_ref)(safe response)
//                                                            - (log pi - log pi_ref)(undesired answer)))
//       + alpha * retain term
// log pi sums over the whole answer, so beta is in nats of an answer.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/forget_and_retain.hpp"
#include "core/unlearn/losses.hpp"

namespace efface {
namespace {

class IdkDpo : public ForgetAndRetain {
 public:
  IdkDpo(const MethodArgs& args, const MethodChoices& choices)
      : ForgetAndRetain(RowRole::safe, args, choices), beta_(args.at("beta")) {}

  std::string name() const override { return "IdkDPO"; }
  bool reads_pairs() const override { return true; }

 protected:
  bool compares_with_frozen() const override { return true; }
  at::Tensor forget_loss(const RowScores& rows, const ReferenceCache& reference) const override {
    const auto chosen = rows.log_ratios(RowRole::safe, reference, Answer::chosen);
    if (!chosen.defined()) return {};
    return dpo_loss(chosen, rows.log_ratios(RowRole::safe, reference, Answer::rejected), beta_);
  }

 private:
  double beta_;
};

}  // namespace

MethodDescription describe_idk_dpo() {
  MethodDescription method;
  method.name = "IdkDPO";
  method.summary = "prefers the safe response to the undesired answer of the same question (DPO)";
  method.defaults = {{"beta", 0.1}};
  method.help = {{"beta", "in nats of the whole answer: ~1 for answers of 1-3 tokens, .1 for ~50"}};
  describe_forget_and_retain(method, 1, "weight of the preference term");
  method.make = make_without_window<IdkDpo>;
  return method;
}

}  // namespace efface
