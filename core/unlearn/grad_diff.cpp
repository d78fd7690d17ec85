// GradDiff (Liu et al. 2022): L = -gamma * mean over forget rows of NLL + alpha * retain term.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/forget_and_retain.hpp"

namespace efface {
namespace {

class GradDiff : public ForgetAndRetain {
 public:
  GradDiff(const MethodArgs& args, const MethodChoices& choices)
      : ForgetAndRetain(RowRole::forget, args, choices) {}

  std::string name() const override { return "GradDiff"; }

 protected:
  at::Tensor forget_loss(const RowScores& rows, const ReferenceCache&) const override {
    const auto nll = rows.mean_nll(RowRole::forget);
    return nll.defined() ? -nll : nll;
  }
};

}  // namespace

MethodDescription describe_grad_diff() {
  MethodDescription method;
  method.name = "GradDiff";
  method.summary = "raises the NLL of the forget answers, lowers that of retain rows";
  describe_forget_and_retain(method, 1, "weight of the forget term");
  method.make = make_without_window<GradDiff>;
  return method;
}

}  // namespace efface
