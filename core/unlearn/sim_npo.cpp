// SimNPO (Fan et al. 2024): NPO without a reference, by the mean NLL of a token, with a retain term:
//   L = gamma * mean over forget rows of -(2/beta) log sigmoid(beta (nll/|y| - delta)) + alpha * retain term
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/forget_and_retain.hpp"
#include "core/unlearn/losses.hpp"

namespace efface {
namespace {

class SimNpo : public ForgetAndRetain {
 public:
  SimNpo(const MethodArgs& args, const MethodChoices& choices)
      : ForgetAndRetain(RowRole::forget, args, choices), beta_(args.at("beta")), delta_(args.at("delta")) {}

  std::string name() const override { return "SimNPO"; }

 protected:
  at::Tensor forget_loss(const RowScores& rows, const ReferenceCache&) const override {
    const auto nll = rows.mean_nll(RowRole::forget);
    return nll.defined() ? sim_npo_loss(nll, beta_, delta_) : nll;
  }

 private:
  double beta_, delta_;
};

}  // namespace

MethodDescription describe_sim_npo() {
  MethodDescription method;
  method.name = "SimNPO";
  method.summary = "NPO without a reference model, normalised by the answer's length";
  method.defaults = {{"beta", 4.5}, {"delta", 0}};
  method.help = {{"beta", "in nats of one token"}, {"delta", "margin on the mean NLL"}};
  describe_forget_and_retain(method, 0.125, "weight of the forget term");
  method.make = make_without_window<SimNpo>;
  return method;
}

}  // namespace efface
