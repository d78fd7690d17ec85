// What the baselines of two terms share; each is a forget loss and this:
//   L = gamma * mean over the forget role's rows of forget_loss
//       + alpha * mean over retain rows of the NLL, or of the KL to the frozen model (OpenUnlearning's
//         retain_loss_type)
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/unlearn/method.hpp"
#include "core/unlearn/row_scores.hpp"

namespace efface {

class ForgetAndRetain : public Method {
 public:
  TrainedParameters trains() const override { return TrainedParameters::lora; }
  std::vector<RowRole> roles() const override;
  std::vector<std::string> parts() const override { return {"forget", "retain"}; }
  std::map<RowRole, ReferenceNeeds> needs() const override;
  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override;

 protected:
  /// forget_role: the rows that forget_loss() reads.
  ForgetAndRetain(RowRole forget_role, const MethodArgs& args, const MethodChoices& choices)
      : forget_role_(forget_role),
        gamma_(args.at("gamma")),
        alpha_(args.at("alpha")),
        retain_kl_(choices.at("retain_loss_type") == "KL") {}

  /// [rows] in the batch's order; undefined when it has no row of the role.
  virtual at::Tensor forget_loss(const RowScores& rows, const ReferenceCache& reference) const = 0;
  /// Does forget_loss() read the frozen model's log-probabilities?
  virtual bool compares_with_frozen() const { return false; }

 private:
  RowRole retain_role() const { return retain_kl_ ? RowRole::retain_kl : RowRole::retain; }

  RowRole forget_role_;
  double gamma_, alpha_;
  bool retain_kl_;
};

/// Adds `gamma` and the retain term's arguments to a description that has its name, its summary, and the
/// rest.
void describe_forget_and_retain(MethodDescription& method, double gamma, const std::string& gamma_help);

/// A description's `make` for T(args, choices).
template <typename T>
std::unique_ptr<Method> make_without_window(const MethodArgs& args, const MethodChoices& choices,
                                            LayerWindow) {
  return std::make_unique<T>(args, choices);
}

}  // namespace efface
