// The second half of a layer: one dense block, or a mixture of experts (Shazeer et al. 2017).
#include "core/model/elementwise.hpp"
#include "core/model/state.hpp"

namespace efface {
namespace {

/// Tokens by the expert they go to: entries [first[e], first[e + 1]) of `tokens` are expert e's, ascending.
struct Routing {
  at::Tensor tokens;           ///< [tokens * chosen]
  at::Tensor weights;          ///< [tokens * chosen], differentiable
  std::vector<int64_t> sizes;  ///< [experts]
};

Routing route(const at::Tensor& z, const at::Tensor& router, const ModelConfig& config) {
  const at::Tensor scores = at::matmul(z, router.to(z.scalar_type()).t());
  const at::Tensor probabilities = at::softmax(scores, 1, accumulation_type(z.scalar_type()));
  auto [weights, experts] = probabilities.topk(config.experts_per_token, 1);
  if (config.normalise_experts) weights = weights / weights.sum(1, /*keepdim=*/true);
  const at::Tensor flat = experts.reshape({-1});
  const at::Tensor order = at::argsort(flat, /*stable=*/true, 0, /*descending=*/false);
  const at::Tensor counts = at::bincount(flat, {}, router.size(0)).cpu();
  Routing routing;
  routing.tokens = order.floor_divide(config.experts_per_token);
  routing.weights = weights.reshape({-1}).index_select(0, order).to(z.scalar_type());
  routing.sizes.assign(counts.data_ptr<int64_t>(), counts.data_ptr<int64_t>() + counts.numel());
  return routing;
}

}  // namespace

at::Tensor Transformer::State::feed_forward(const FeedForward& block, const at::Tensor& z,
                                            const See& see) const {
  see(Input::gate_up, z);
  const at::Tensor activated = gated(apply_linear(block.gate_up, z, adapters_enabled), config.activation);
  see(Input::down, activated);
  return apply_linear(block.down, activated, adapters_enabled);
}

at::Tensor Transformer::State::mixture(int index, const at::Tensor& z, const Taps* taps) const {
  const DecoderLayer& layer = weights.layers[index];
  const Routing routing = route(z, layer.router, config);
  const auto inputs = at::split_with_sizes(z.index_select(0, routing.tokens), routing.sizes);
  const auto tokens = at::split_with_sizes(routing.tokens, routing.sizes);
  std::vector<at::Tensor> outputs;
  for (size_t expert = 0; expert < layer.experts.size(); ++expert) {
    const bool seen = taps && taps->on_expert_input;
    if (routing.sizes[expert] == 0 && !seen) continue;  // who looks on is shown that there is nothing
    outputs.push_back(feed_forward(layer.experts[expert], inputs[expert], [&](Input input, const auto& x) {
      if (seen) taps->on_expert_input({index, input, static_cast<int>(expert)}, x, tokens[expert]);
    }));
  }
  if (outputs.empty()) return at::zeros_like(z);
  return at::zeros_like(z).index_add(0, routing.tokens, at::cat(outputs) * routing.weights.unsqueeze(1));
}

}  // namespace efface
