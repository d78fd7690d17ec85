// KUDA: unlearning by deviating representations. The hidden state that leaves the last layer of a window of
// feed-forward layers is turned away from where the frozen model had it, by changing only the window's
// down_proj matrices, and each change only in the null space of what the retained knowledge feeds them.
//
//   d_t = 1/2 || h_t/|h_t| - h0_t/|h0_t| ||^2  = 1 - cos(h_t, h0_t)      every token t that is turned away
//   L   = -(2/beta) mean_t log sigmoid(beta d_t)
//         + alpha * mean over retain tokens of MSE(h_t, h0_t)            off by default
//
// beta is where the loss saturates (d ~ 1/beta), not its strength. The mean is over all forget tokens of the
// global batch.
//
// At step 0 h = h0, where the gradient of a cosine is zero: in practice rounding noise, which Adam would turn
// into a full-size step. So training starts from W0 + seeded, projected noise (train.initial_noise, 1e-3
// ||W0||).
//
// Layers below the window never change: their output is computed once a row and cached, with h0, so a step
// costs the window alone. The window is computed in fp32 whatever the model's dtype.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/loss_sum.hpp"
#include "core/unlearn/losses.hpp"
#include "core/unlearn/window_pass.hpp"

namespace efface {
namespace {

class Kuda : public Method {
 public:
  Kuda(const MethodArgs& args, LayerWindow window)
      : beta_(args.at("beta")), alpha_(args.at("alpha")), window_(window) {}

  std::string name() const override { return "KUDA"; }
  TrainedParameters trains() const override { return TrainedParameters::down_proj_window; }
  std::vector<std::string> parts() const override { return {"forget", "deviation", "retain"}; }

  std::vector<RowRole> roles() const override {
    return alpha_ != 0 ? std::vector{RowRole::forget, RowRole::retain} : std::vector{RowRole::forget};
  }

  std::map<RowRole, ReferenceNeeds> needs() const override {
    std::map<RowRole, ReferenceNeeds> needs;
    for (RowRole role : roles()) needs[role] = window_needs(window_, /*representation=*/true);
    return needs;
  }

  void prepare(Transformer& model) const override { compute_window_in_fp32(model, window_); }

  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override {
    const WindowPass window(model, batch, reference, window_);
    LossSum loss;
    if (const auto h = window.output(RowRole::forget); h.defined()) {
      const auto d = deviation(h, window.reference_output(RowRole::forget, reference));
      const int64_t tokens = batch.global_tokens.at(RowRole::forget);
      loss.add("forget", 1, at::log_sigmoid(d * beta_) * (-2 / beta_), tokens);
      loss.report("deviation", d, tokens);
    }
    if (const auto h = window.output(RowRole::retain); alpha_ != 0 && h.defined()) {
      const auto h0 = window.reference_output(RowRole::retain, reference);
      loss.add("retain", alpha_, representation_error(h, h0), batch.global_tokens.at(RowRole::retain));
    }
    return loss.take();
  }

 private:
  double beta_, alpha_;
  LayerWindow window_;
};

}  // namespace

MethodDescription describe_kuda() {
  MethodDescription kuda;
  kuda.name = "KUDA";
  kuda.summary = "turns the representations of forget text away in a traced window of layers (down_proj)";
  kuda.defaults = {{"beta", 1}, {"alpha", 0}};
  kuda.help = {
      {"beta", "the deviation saturates at about 1 / beta"},
      {"alpha", "weight of the retain term, MSE of the window's output to the frozen model's; 0: off"}};
  kuda.needs_window = true;
  kuda.make = [](const MethodArgs& args, const MethodChoices&, LayerWindow window) {
    return std::make_unique<Kuda>(args, window);
  };
  return kuda;
}

}  // namespace efface
