// The retain half that the baselines share: alpha times the mean over retain rows of the NLL, or of the KL to
// the frozen model (OpenUnlearning's retain_loss_type).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/unlearn/loss_sum.hpp"
#include "core/unlearn/method.hpp"
#include "core/unlearn/row_scores.hpp"

namespace efface {

class RetainTerm {
 public:
  RetainTerm(const MethodArgs& args, const MethodChoices& choices)
      : alpha_(args.at("alpha")), kl_(choices.at("retain_loss_type") == "KL") {}

  bool is_on() const { return alpha_ != 0; }
  RowRole role() const { return kl_ ? RowRole::retain_kl : RowRole::retain; }
  /// The other term's role and, where this one is on, its own.
  std::vector<RowRole> roles_with(RowRole other) const {
    return is_on() ? std::vector{other, role()} : std::vector{other};
  }
  void add_needs(std::map<RowRole, ReferenceNeeds>& needs) const {
    if (is_on() && kl_) needs[role()].label_hidden = true;
  }
  void add(LossSum& loss, const RowScores& rows, const StepBatch& batch,
           const ReferenceCache& reference) const {
    if (!is_on()) return;
    const auto values = kl_ ? rows.mean_kl(role(), reference) : rows.mean_nll(role());
    loss.add("retain", alpha_, values, batch.global_rows.at(role()));
  }

  /// The term's arguments in a method's description.
  static void describe(MethodDescription& method) {
    method.defaults["alpha"] = 1;
    method.help["alpha"] = "weight of the retain term; 0: off";
    method.choices_default["retain_loss_type"] = "NLL";
    method.choices["retain_loss_type"] = {"NLL", "KL"};
    method.help["retain_loss_type"] = "the retain term: next-token NLL, or KL to the frozen model";
  }

 private:
  double alpha_;
  bool kl_;
};

}  // namespace efface
