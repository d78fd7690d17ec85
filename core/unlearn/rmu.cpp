// RMU (Li et al. 2024, "The WMDP benchmark"): steers the representation of forget text to one random
// direction.
//
//   L = gamma * mean over forget tokens of MSE(h_t, c u) + alpha * mean over retain tokens of MSE(h_t, h0_t)
//
// u is a uniform [0, 1) vector scaled to length 1, c = steering_coeff; each row's first token is left out.
// Runs and trains the same window as KUDA, so that the two differ by their losses alone.
#include "core/unlearn/descriptions.hpp"
#include "core/unlearn/loss_sum.hpp"
#include "core/unlearn/window_pass.hpp"
#include "distributed/philox.hpp"

namespace efface {
namespace {

class Rmu : public Method {
 public:
  Rmu(const MethodArgs& args, LayerWindow window)
      : gamma_(args.at("gamma")),
        alpha_(args.at("alpha")),
        steering_coeff_(args.at("steering_coeff")),
        seed_(static_cast<uint64_t>(args.at("steering_seed"))),
        window_(window) {}

  std::string name() const override { return "RMU"; }
  TrainedParameters trains() const override { return TrainedParameters::down_proj_window; }
  std::vector<std::string> parts() const override { return {"forget", "retain"}; }

  std::vector<RowRole> roles() const override {
    return alpha_ != 0 ? std::vector{RowRole::forget, RowRole::retain} : std::vector{RowRole::forget};
  }

  std::map<RowRole, ReferenceNeeds> needs() const override {
    std::map<RowRole, ReferenceNeeds> needs;
    needs[RowRole::forget] = window_needs(window_, /*representation=*/false);
    if (alpha_ != 0) needs[RowRole::retain] = window_needs(window_, /*representation=*/true);
    return needs;
  }

  void prepare(Transformer& model) const override { compute_window_in_fp32(model, window_); }

  LossParts loss(const Transformer& model, const StepBatch& batch,
                 const ReferenceCache& reference) const override {
    const WindowPass window(model, batch, reference, window_);
    LossSum loss;
    if (const auto h = window.output(RowRole::forget); h.defined()) {
      const auto target = steering_vector(model).to(h.options().requires_grad(false));
      loss.add("forget", gamma_, representation_error(h, target), batch.global_tokens.at(RowRole::forget));
    }
    if (const auto h = window.output(RowRole::retain); alpha_ != 0 && h.defined()) {
      const auto h0 = window.reference_output(RowRole::retain, reference);
      loss.add("retain", alpha_, representation_error(h, h0), batch.global_tokens.at(RowRole::retain));
    }
    return loss.take();
  }

 private:
  /// c u: [1, hidden] fp32.
  at::Tensor steering_vector(const Transformer& model) const {
    const auto u = philox_uniform({seed_, "rmu_steering", ""}, 1, model.config().hidden_size);
    return u * (steering_coeff_ / u.norm());
  }

  double gamma_, alpha_, steering_coeff_;
  uint64_t seed_;
  LayerWindow window_;
};

}  // namespace

MethodDescription describe_rmu() {
  MethodDescription rmu;
  rmu.name = "RMU";
  rmu.summary = "steers the representations of forget text to a random direction (down_proj of a window)";
  rmu.defaults = {{"gamma", 1}, {"alpha", 1}, {"steering_coeff", 2}, {"steering_seed", 0}};
  rmu.help = {{"gamma", "weight of the forget term"},
              {"alpha", "weight of the retain term; 0: off"},
              {"steering_coeff", "length of the vector the forget text's representations are steered to"},
              {"steering_seed", "seed of its direction"}};
  rmu.needs_window = true;
  rmu.make = [](const MethodArgs& args, const MethodChoices&, LayerWindow window) {
    return std::make_unique<Rmu>(args, window);
  };
  return rmu;
}

}  // namespace efface
