// NSRU: null-space constrained, response-specified unlearning.
//
// The forget question gets a safe response, the undesired answer is suppressed, and what is to be kept is
// kept twice: by a loss, and by confining each adapter to the null space of what the retained knowledge uses
// of its module's input (y = W0 x + s B A P x; the trainer forms A P once a step, after the optimiser, so
// that no loss here can leave that space).
//
//   L =   safe_weight        * mean over safe rows   of  -log p(safe response | question)
//       + suppression_weight * mean over forget rows of  L_sup(undesired answer | prompt)
//       + retain_weight      * mean over retain rows of  -log p(labels)
//       + retain_kl_weight   * mean over retain rows of  KL(frozen model || model) at the labels
//
// A row's value is the mean over its labels, the first label weighted on its own; only NPO reads the sum over
// the answer, whose beta is therefore in nats of the whole answer: about 1 for answers of 1-3 tokens, .1
// for 50. L_sup is one of npo, simnpo, ga (log p) and unlikelihood (-log(1 - p)). A weight of 0 switches its
// loss off and its rows are never drawn.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/loss_sum.hpp"
#include "core/unlearn/losses.hpp"
#include "core/unlearn/row_scores.hpp"

namespace efface {
namespace {

class Nsru : public Method {
 public:
  Nsru(const MethodArgs& args, const MethodChoices& choices)
      : safe_weight_(args.at("safe_weight")),
        suppression_weight_(args.at("suppression_weight")),
        retain_weight_(args.at("retain_weight")),
        retain_kl_weight_(args.at("retain_kl_weight")),
        npo_beta_(args.at("npo_beta")),
        simnpo_delta_(args.at("simnpo_delta")),
        suppression_(choices.at("suppression")) {}

  std::string name() const override { return "NSRU"; }
  TrainedParameters trains() const override { return TrainedParameters::lora; }
  std::vector<std::string> parts() const override { return {"safe", "suppression", "retain", "retain_kl"}; }

  std::vector<RowRole> roles() const override {
    std::vector<RowRole> roles;
    if (suppression_weight_ != 0) roles.push_back(RowRole::forget);
    if (safe_weight_ != 0) roles.push_back(RowRole::safe);
    if (retain_weight_ != 0) roles.push_back(RowRole::retain);
    if (retain_kl_weight_ != 0) roles.push_back(RowRole::retain_kl);
    return roles;
  }

  std::map<RowRole, ReferenceNeeds> needs() const override {
    std::map<RowRole, ReferenceNeeds> needs;
    if (suppression_weight_ != 0 && suppression_ == "npo") needs[RowRole::forget].log_probability = true;
    if (retain_kl_weight_ != 0) needs[RowRole::retain_kl].label_hidden = true;
    return needs;
  }

  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override {
    const RowScores rows(model, batch);
    LossSum loss;
    const auto add_row_mean = [&](const char* part, double weight, RowRole role, const at::Tensor& values) {
      loss.add(part, weight, values, batch.global_rows.at(role));
    };
    if (safe_weight_ != 0) add_row_mean("safe", safe_weight_, RowRole::safe, rows.mean_nll(RowRole::safe));
    if (suppression_weight_ != 0)
      add_row_mean("suppression", suppression_weight_, RowRole::forget, suppression(rows, reference));
    if (retain_weight_ != 0)
      add_row_mean("retain", retain_weight_, RowRole::retain, rows.mean_nll(RowRole::retain));
    if (retain_kl_weight_ != 0)
      add_row_mean("retain_kl", retain_kl_weight_, RowRole::retain_kl,
                   rows.mean_kl(RowRole::retain_kl, reference));
    return loss.take();
  }

 private:
  /// L_sup of each forget row: [rows].
  at::Tensor suppression(const RowScores& rows, const ReferenceCache& reference) const {
    const auto log_p = rows.label_log_probabilities(RowRole::forget);
    if (!log_p.defined()) return {};
    if (suppression_ == "npo")
      return npo_loss(rows.sequence_log_probabilities(RowRole::forget),
                      rows.reference_log_probabilities(RowRole::forget, reference), npo_beta_);
    if (suppression_ == "simnpo")
      return sim_npo_loss(rows.mean_nll(RowRole::forget), npo_beta_, simnpo_delta_);
    if (suppression_ == "unlikelihood") return rows.row_means(RowRole::forget, unlikelihood_loss(log_p));
    return rows.row_means(RowRole::forget, log_p);
  }

  double safe_weight_, suppression_weight_, retain_weight_, retain_kl_weight_, npo_beta_, simnpo_delta_;
  std::string suppression_;
};

}  // namespace

MethodDescription describe_nsru() {
  MethodDescription nsru;
  nsru.name = "NSRU";
  nsru.summary =
      "answers forget questions with a given safe response, in the null space of what is kept (LoRA)";
  nsru.defaults = {{"safe_weight", 1},      {"suppression_weight", 1}, {"retain_weight", 1},
                   {"retain_kl_weight", 0}, {"npo_beta", 1},           {"simnpo_delta", 0}};
  nsru.help = {{"safe_weight", "weight of the safe response's NLL; 0: off"},
               {"suppression_weight", "weight of the undesired answer's suppression; 0: off"},
               {"retain_weight", "weight of the retain rows' NLL; 0: off"},
               {"retain_kl_weight", "weight of the retain rows' KL to the frozen model; 0: off"},
               {"npo_beta", "NPO's and SimNPO's beta, in nats of the whole answer (SimNPO: of a token)"},
               {"simnpo_delta", "SimNPO's margin on the mean NLL"},
               {"suppression", "the loss that suppresses the undesired answer"}};
  nsru.choices_default = {{"suppression", "npo"}};
  nsru.choices = {{"suppression", {"npo", "simnpo", "ga", "unlikelihood"}}};
  nsru.make = [](const MethodArgs& args, const MethodChoices& choices, LayerWindow) {
    return std::make_unique<Nsru>(args, choices);
  };
  return nsru;
}

}  // namespace efface
