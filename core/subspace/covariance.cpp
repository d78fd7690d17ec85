#include "core/subspace/covariance.hpp"

#include <algorithm>
#include <optional>

#include "core/subspace/norm_cap.hpp"
#include "core/subspace/store_manifest.hpp"
#include "core/subspace/token_staging.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

at::Tensor cap_scale(double cap, const at::Tensor& norms) {
  return at::where(norms > cap, cap / norms, at::ones_like(norms)).to(at::kFloat);
}

// Waits until the cap is known: tokens as counted, [tokens, n] in column blocks, and their norms.
struct Uncapped {
  std::vector<ColumnBlocks> tokens;
  std::vector<at::Tensor> norms;  // [tokens] fp64
};

struct InputSum {
  InputSum(const InputId& id, int64_t n, bool capped, const Communicator& group)
      : id(id), n(n), capped(capped), moment(n, group) {}

  InputId id;
  int64_t n;
  bool capped;
  StagedSecondMoment moment;
  std::optional<StagedSecondMoment> heldout;
  int64_t tokens = 0, heldout_tokens = 0, sinks = 0;
  double energy = 0, largest_token = 0;  // sum and maximum of squared norms, uncapped
  at::Tensor sink_sum;                   // [n] fp64
  std::optional<double> cap;
  Uncapped uncapped;
};

}  // namespace

struct CovarianceAccumulator::State {
  Mesh mesh;
  CovarianceOptions options;
  std::map<InputId, InputSum> inputs;
  Taps taps;
  ProductScratch scratch;

  // The pass under way.
  bool heldout = false;
  at::Tensor counted, sinks;  // token indices of the batch

  // Until the cap is fixed.
  TokenOrder order;
  bool sampling = false;

  void begin_pass(const RaggedBatch& batch, bool into_heldout);
  /// `x_counted`, `x_sinks`: rows of x.
  void see(InputSum& input, const at::Tensor& x, const at::Tensor& x_counted, const at::Tensor& x_sinks);
  ColumnBlocks column_blocks(const InputSum& input, const at::Tensor& x) const;
  void fix_cap(InputSum& input);
  Covariance finish(InputSum& input);
};

CovarianceAccumulator::CovarianceAccumulator(const ModelConfig& config, const Mesh& mesh,
                                             std::vector<InputId> inputs, CovarianceOptions options)
    : state_(std::make_shared<State>()) {
  state_->mesh = mesh;
  state_->options = options;
  for (const InputId& id : inputs) {
    if (options.caps(id.input) && id.expert != kDense)
      throw Error(ErrorClass::recipe, input_name(id) + ": inputs of experts cannot be capped",
                  "set nullspace.norm_cap to 0");
    const bool capped = options.caps(id.input);
    state_->inputs.try_emplace(id, id, input_width(id, config), capped, mesh.tensor);
    state_->sampling |= capped;
  }
}

int CovarianceAccumulator::last_layer() const {
  return state_->inputs.empty() ? -1 : state_->inputs.rbegin()->first.layer;
}

const Taps& CovarianceAccumulator::taps(const RaggedBatch& batch, bool heldout) {
  state_->begin_pass(batch, heldout);
  state_->taps.on_input = [state = state_.get()](const InputId& id, const at::Tensor& x) {
    const auto input = state->inputs.find(id);
    if (input != state->inputs.end()) state->see(input->second, x.detach(), state->counted, state->sinks);
  };
  state_->taps.on_expert_input = [state = state_.get()](const InputId& id, const at::Tensor& x,
                                                        const at::Tensor& tokens) {
    const auto input = state->inputs.find(id);
    if (input == state->inputs.end()) return;
    const auto routed = [&](const at::Tensor& of_batch) {
      return at::isin(tokens, of_batch).nonzero().flatten();
    };
    state->see(input->second, x.detach(), routed(state->counted), routed(state->sinks));
  };
  return state_->taps;
}

void CovarianceAccumulator::State::begin_pass(const RaggedBatch& batch, bool into_heldout) {
  const at::NoGradGuard no_grad;
  heldout = into_heldout;
  const at::Tensor positions = batch.positions.to(at::kLong);
  const at::Tensor is_sink = options.skip_sinks ? positions.eq(0) : at::zeros_like(positions, at::kBool);
  counted = is_sink.logical_not().nonzero().flatten();
  sinks = is_sink.nonzero().flatten();
  if (!sampling || heldout) return;
  sampling = order.tokens() < options.cap_sample;
  if (!sampling) return;
  std::vector<int64_t> lengths;
  for (int64_t row = 0; row < batch.rows(); ++row)
    lengths.push_back(batch.offsets[row + 1] - batch.offsets[row] - (options.skip_sinks ? 1 : 0));
  order.add_pass(lengths, mesh.data);
}

ColumnBlocks CovarianceAccumulator::State::column_blocks(const InputSum& input, const at::Tensor& x) const {
  const int size = mesh.tensor_size();
  if (size == 1) return {x};
  ColumnBlocks blocks;
  if (is_sharded(input.id.input)) {
    const at::Tensor all = mesh.tensor.all_gather(x.contiguous());
    for (int rank = 0; rank < size; ++rank) blocks.push_back(all.narrow(0, rank * x.size(0), x.size(0)));
  } else {
    for (int rank = 0; rank < size; ++rank) {
      const auto [begin, end] = even_range(input.n, rank, size);
      blocks.push_back(x.narrow(1, begin, end - begin));
    }
  }
  return blocks;
}

void CovarianceAccumulator::State::see(InputSum& input, const at::Tensor& x, const at::Tensor& x_counted,
                                       const at::Tensor& x_sinks) {
  const at::NoGradGuard no_grad;
  const ColumnBlocks blocks = column_blocks(input, x);
  if (heldout) {
    if (!input.heldout) input.heldout.emplace(input.n, mesh.tensor);
    input.heldout_tokens += x_counted.numel();
    input.heldout->add(blocks, x_counted, {}, scratch);
    return;
  }
  if (options.skip_sinks) {
    std::vector<at::Tensor> sums;
    for (const at::Tensor& block : blocks)
      sums.push_back(block.index_select(0, x_sinks).to(at::kDouble).sum(0));
    const at::Tensor sum = at::cat(sums);
    input.sink_sum = input.sink_sum.defined() ? input.sink_sum + sum : sum;
    input.sinks += x_sinks.numel();
  }

  const at::Tensor squared = squared_norms(blocks).index_select(0, x_counted);
  input.tokens += x_counted.numel();
  if (x_counted.numel() > 0) {
    input.energy += squared.sum().item<double>();
    input.largest_token = std::max(input.largest_token, squared.max().item<double>());
  }
  if (!input.capped) {
    input.moment.add(blocks, x_counted, {}, scratch);
  } else if (input.cap) {
    const at::Tensor scale = cap_scale(*input.cap, squared.sqrt());
    input.moment.add(blocks, x_counted, scale, scratch);
  } else {
    ColumnBlocks kept;
    for (const at::Tensor& block : blocks) kept.push_back(block.index_select(0, x_counted));
    input.uncapped.tokens.push_back(std::move(kept));
    input.uncapped.norms.push_back(squared.sqrt());
    if (order.tokens() >= options.cap_sample) fix_cap(input);
  }
}

// Collective over data ranks; all of them are at the same input of the same pass.
void CovarianceAccumulator::State::fix_cap(InputSum& input) {
  const Uncapped uncapped = std::move(input.uncapped);
  input.uncapped = {};
  const at::Tensor local = uncapped.norms.empty() ? at::empty({0}, at::kDouble) : at::cat(uncapped.norms);
  input.cap = options.norm_cap * median(order.first(local, options.cap_sample, mesh.data));
  for (size_t i = 0; i < uncapped.tokens.size(); ++i) {
    const at::Tensor scale = cap_scale(*input.cap, uncapped.norms[i]);
    input.moment.add(uncapped.tokens[i], at::arange(scale.numel(), scale.options().dtype(at::kLong)), scale,
                     scratch);
  }
}

Covariance CovarianceAccumulator::State::finish(InputSum& input) {
  if (input.capped && !input.cap) fix_cap(input);
  Covariance result;
  result.id = input.id;
  result.tokens = mesh.data.all_reduce(input.tokens);
  result.heldout_tokens = mesh.data.all_reduce(input.heldout_tokens);
  if (result.tokens == 0)
    throw Error(ErrorClass::data, input_name(input.id) + ": no retain token was counted",
                "give retain texts of more than one token");
  result.matrix = input.moment.finish(mesh.data);
  result.matrix.local.div_(static_cast<double>(result.tokens));
  if (result.heldout_tokens > 0) {
    result.heldout = input.heldout->finish(mesh.data);
    result.heldout.local.div_(static_cast<double>(result.heldout_tokens));
  }
  if (options.skip_sinks) {
    const int64_t count = mesh.data.all_reduce(input.sinks);
    mesh.data.all_reduce(input.sink_sum);
    if (count > 0) result.sink_mean = (input.sink_sum / static_cast<double>(count)).cpu();
  }
  result.norm_cap = input.cap.value_or(0);
  const double energy = mesh.data.all_reduce(input.energy);
  const double largest = mesh.data.all_reduce(input.largest_token, Reduction::max);
  result.top_token_share = energy > 0 ? largest / energy : 0;
  return result;
}

void CovarianceAccumulator::finish_each(const std::function<void(Covariance&)>& take) {
  const at::NoGradGuard no_grad;
  while (!state_->inputs.empty()) {
    auto node = state_->inputs.extract(state_->inputs.begin());
    Covariance covariance = state_->finish(node.mapped());
    take(covariance);
  }
}

bool CovarianceAccumulator::can_save() const {
  return std::all_of(state_->inputs.begin(), state_->inputs.end(),
                     [](const auto& input) { return !input.second.capped || input.second.cap; });
}

void CovarianceAccumulator::save(StoreFileWriter& file) const {
  for (const auto& [id, input] : state_->inputs) {
    const std::string name = input_name(id);
    input.moment.save(file, name + "/matrix");
    if (input.heldout) input.heldout->save(file, name + "/heldout");
    if (input.sink_sum.defined()) file.write(name + "/sink_sum", input.sink_sum.cpu());
    file.write(name + "/counts",
               at::tensor({input.tokens, input.heldout_tokens, input.sinks,
                           int64_t{input.heldout.has_value()}, int64_t{input.sink_sum.defined()}}));
    file.write(name + "/energies",
               at::tensor({input.energy, input.largest_token, input.cap.value_or(0)}, at::kDouble));
  }
}

void CovarianceAccumulator::restore(const StoreFile& file) {
  const at::Device device = state_->mesh.device;
  for (auto& [id, input] : state_->inputs) {
    const std::string name = input_name(id);
    const at::Tensor counts = file.read(name + "/counts", {5}), energies = file.read(name + "/energies", {3});
    input.tokens = counts[0].item<int64_t>();
    input.heldout_tokens = counts[1].item<int64_t>();
    input.sinks = counts[2].item<int64_t>();
    input.energy = energies[0].item<double>();
    input.largest_token = energies[1].item<double>();
    if (input.capped) input.cap = energies[2].item<double>();
    input.moment.restore(file, name + "/matrix", device);
    if (counts[3].item<int64_t>() != 0)
      input.heldout.emplace(input.n, state_->mesh.tensor).restore(file, name + "/heldout", device);
    if (counts[4].item<int64_t>() != 0) input.sink_sum = file.read(name + "/sink_sum", {input.n}).to(device);
  }
  state_->sampling = false;
}

std::vector<Covariance> CovarianceAccumulator::finish() {
  std::vector<Covariance> results;
  finish_each([&](Covariance& covariance) { results.push_back(std::move(covariance)); });
  return results;
}

}  // namespace efface
