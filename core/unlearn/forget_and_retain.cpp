#include "core/unlearn/forget_and_retain.hpp"

#include "core/unlearn/loss_sum.hpp"

namespace efface {

std::vector<RowRole> ForgetAndRetain::roles() const {
  return alpha_ != 0 ? std::vector{forget_role_, retain_role()} : std::vector{forget_role_};
}

std::map<RowRole, ReferenceNeeds> ForgetAndRetain::needs() const {
  std::map<RowRole, ReferenceNeeds> needs;
  if (compares_with_frozen()) needs[forget_role_].log_probability = true;
  if (alpha_ != 0 && retain_kl_) needs[retain_role()].label_hidden = true;
  return needs;
}

LossParts ForgetAndRetain::loss(const Transformer& model, const StepBatch& batch,
                                const ReferenceCache& reference) const {
  const RowScores rows(model, batch);
  LossSum loss;
  if (const auto values = forget_loss(rows, reference); values.defined())
    loss.add("forget", gamma_, values, batch.global_rows.at(forget_role_));
  if (alpha_ != 0) {
    const auto values = retain_kl_ ? rows.mean_kl(retain_role(), reference) : rows.mean_nll(retain_role());
    loss.add("retain", alpha_, values, batch.global_rows.at(retain_role()));
  }
  return loss.take();
}

void describe_forget_and_retain(MethodDescription& method, double gamma, const std::string& gamma_help) {
  method.defaults["gamma"] = gamma;
  method.help["gamma"] = gamma_help;
  method.defaults["alpha"] = 1;
  method.help["alpha"] = "weight of the retain term; 0: off";
  method.choices_default["retain_loss_type"] = "NLL";
  method.choices["retain_loss_type"] = {"NLL", "KL"};
  method.help["retain_loss_type"] = "the retain term: next-token NLL, or KL to the frozen model";
}

}  // namespace efface
