#include "core/unlearn/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

#include "core/unlearn/trainer_state.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int64_t kMostSkippedInARow = 10;

double learning_rate_at(const TrainOptions& options, int64_t step) {
  double rate = options.learning_rate;
  if (step < options.warmup_steps)
    rate *= static_cast<double>(step + 1) / static_cast<double>(options.warmup_steps);
  const auto decay_steps = std::llround(options.decay_fraction * static_cast<double>(options.steps));
  const int64_t left = options.steps - step;
  if (left < decay_steps)
    rate *= static_cast<double>(std::max<int64_t>(0, left)) / static_cast<double>(decay_steps);
  return rate;
}

std::vector<ModuleId> default_modules(const ModelConfig& config, TrainedParameters kind,
                                      const LoraOptions& lora) {
  const auto layers = static_cast<int>(config.layers);
  if (kind == TrainedParameters::lora) return modules_of(config, 0, layers, lora.target_modules);
  if (kind == TrainedParameters::full)
    return modules_of(config, 0, layers, {std::begin(kProjections), std::end(kProjections)});
  throw Error(ErrorClass::recipe, "no modules to train were named", "name the window's down_proj");
}

std::string row_id_text(uint64_t id) {
  std::ostringstream text;
  text << std::hex << std::setw(16) << std::setfill('0') << id;
  return text.str();
}

bool replica_check_is_due(const TrainOptions& options, int64_t steps_done) {
  const int64_t every = options.replica_check_every;
  return every > 0 && (steps_done == 1 || steps_done % every == 0 || steps_done == options.steps);
}

}  // namespace

Trainer::Trainer(Transformer& model, const Method& method, TrainingPool pool, ReferenceCache references,
                 std::map<InputId, Projector> projectors, TrainOptions options, LoraOptions lora,
                 std::vector<ModuleId> trained) {
  method.prepare(model);
  const TrainedParameters kind = options.parameters.value_or(method.trains());
  if (trained.empty()) trained = default_modules(model.config(), kind, lora);
  std::sort(trained.begin(), trained.end());
  state_.reset(new State{model,
                         method,
                         std::move(pool),
                         std::move(references),
                         std::move(options),
                         std::move(lora),
                         std::move(trained),
                         kind,
                         {},
                         {},
                         {}});
  state_->check_pool();
  const auto roles = method.roles();
  std::erase_if(state_->options.rows_per_step, [&](const auto& entry) {
    return std::find(roles.begin(), roles.end(), entry.first) == roles.end();
  });
  const TrainOptions& train = state_->options;
  if (kind == TrainedParameters::lora)
    state_->parameters =
        make_lora_parameters(model, state_->trained, projectors, train.projection, state_->lora, train.seed);
  else
    state_->parameters = make_matrix_parameters(model, state_->trained, projectors, train.projection,
                                                train.initial_noise, train.seed);
  const at::Tensor& values = state_->parameters->values();
  state_->adam.emplace(values.numel(), values.options(),
                       AdamOptions{train.beta1, train.beta2, train.epsilon});
}

Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;

void Trainer::State::check_pool() const {
  const auto roles = method.roles();
  const auto check_row = [&](RowRole role, const TokenRow& row) {
    if (row.ids.size() < 2 || (method.trains() != TrainedParameters::down_proj_window && row.labels() == 0))
      throw Error(ErrorClass::data,
                  "the " + role_name(role) + " row " + row_id_text(row.row_id()) + " has nothing to train on",
                  "give each row a target after its prompt");
  };
  for (RowRole role : roles) {
    const auto groups = pool.groups.find(role);
    const auto rows = options.rows_per_step.find(role);
    const std::string what = method.name() + " reads " + role_name(role) + " rows";
    if (groups == pool.groups.end() || groups->second.empty())
      throw Error(ErrorClass::data, what + " and the data has none",
                  "give some, or set that loss's weight to 0");
    if (rows == options.rows_per_step.end() || rows->second <= 0)
      throw Error(ErrorClass::recipe, what + " and the batch has none", "give them a share of the batch");
    for (const auto& wordings : groups->second) {
      if (wordings.empty()) throw Error(ErrorClass::data, "a " + role_name(role) + " record without a row");
      for (const TrainingRow& row : wordings) {
        check_row(role, row.tokens);
        if (role != RowRole::safe || !method.reads_pairs()) continue;
        if (!row.rejected)
          throw Error(ErrorClass::data, what + " that are pairs, and " + row_id_text(row.tokens.row_id()) +
                                            " has no answer that it is preferred to");
        check_row(role, *row.rejected);
      }
    }
  }
}

StepBatch Trainer::State::batch_of_rank(const std::vector<TrainingRow>& global, int64_t step,
                                        int data_rank) const {
  StepBatch batch;
  batch.step = step;
  std::vector<int64_t> tokens;
  for (const TrainingRow& row : global) {
    tokens.push_back(row.tokens_in_pass());
    batch.global_rows[row.role] += 1;
    batch.global_labels[row.role] += row.tokens.labels();
    batch.global_tokens[row.role] += row.represented_tokens();
  }
  const auto dealt = deal_by_tokens(tokens, mesh().data_size());
  for (size_t row : dealt[data_rank]) batch.rows.push_back(global[row]);
  return batch;
}

StepBatch Trainer::batch(int64_t step) const {
  return state_->batch_of_rank(state_->rows_of(step), step, state_->mesh().data_rank());
}

Trainer::State::PassSums Trainer::State::run_passes(const std::vector<TrainingRow>& global) {
  const StepBatch batch = batch_of_rank(global, steps_done, mesh().data_rank());
  parameters->zero_gradients();
  PassSums sums;
  for (auto& rows : split_passes(batch.rows, options.max_tokens_per_pass)) {
    StepBatch pass = batch;
    pass.rows = std::move(rows);
    LossParts loss = method.loss(model, pass, references);
    if (!loss.total.defined()) continue;
    sums.loss += loss.total.item<double>();
    for (const auto& [part, value] : loss.parts) sums.parts[part] += value;
    loss.total.backward();
  }

  // One small sum over the job: the loss and its parts (once per tensor group), and who met a NaN or an Inf.
  const auto names = method.parts();
  const auto parts = static_cast<int64_t>(names.size());
  const int64_t ranks = mesh().data_size();
  auto shared = at::zeros({1 + parts + 2 * ranks}, at::kDouble);
  const bool loss_is_finite = std::isfinite(sums.loss);
  if (mesh().tensor_rank() == 0 && loss_is_finite) {
    shared[0] = sums.loss;
    for (int64_t i = 0; i < parts; ++i) shared[1 + i] = sums.parts[names[i]];
  }
  if (!loss_is_finite) shared[1 + parts + mesh().data_rank()] = 1;
  if (loss_is_finite && !parameters->gradients_are_finite())
    shared[1 + parts + ranks + mesh().data_rank()] = 1;
  mesh().world.all_reduce(shared);
  const auto failed_losses = shared.narrow(0, 1 + parts, ranks),
             failed_gradients = shared.slice(0, 1 + parts + ranks);

  PassSums total;
  if (failed_losses.sum().item<double>() > 0)
    total.not_finite = not_finite_text(global, "the loss", failed_losses);
  else if (failed_gradients.sum().item<double>() > 0)
    total.not_finite = not_finite_text(global, "a gradient", failed_gradients);
  total.loss = shared[0].item<double>();
  for (int64_t i = 0; i < parts; ++i) total.parts[names[i]] = shared[1 + i].item<double>();
  return total;
}

std::string Trainer::State::not_finite_text(const std::vector<TrainingRow>& global, const char* what,
                                            const at::Tensor& failed_ranks) const {
  std::string rows;
  for (int rank = 0; rank < mesh().data_size(); ++rank) {
    if (failed_ranks[rank].item<double>() == 0) continue;
    for (const TrainingRow& row : batch_of_rank(global, steps_done, rank).rows)
      rows.append(" ").append(row_id_text(row.tokens.row_id()));
  }
  return std::string(what) + " is not a finite number; rows" + rows;
}

StepReport Trainer::step() {
  const auto start = std::chrono::steady_clock::now();
  State& state = *state_;
  const int64_t step = state.steps_done;
  const auto global = state.rows_of(step);
  const auto sums = state.run_passes(global);
  if (!sums.not_finite.empty()) {
    if (!state.options.skip_nonfinite || ++state.skipped_in_a_row == kMostSkippedInARow)
      throw Error(ErrorClass::numeric, "step " + std::to_string(step) + ": " + sums.not_finite,
                  "lower train.learning_rate, or look at these rows");
    ++state.steps_done;
    ++state.steps_skipped;
    StepReport report;
    report.step = step;
    report.loss = report.grad_norm = std::numeric_limits<double>::quiet_NaN();
    report.skipped = sums.not_finite;
    return report;
  }
  state.skipped_in_a_row = 0;

  state.gradient = state.parameters->reduced_gradient();
  StepReport report;
  report.step = step;
  report.loss = sums.loss;
  report.parts = sums.parts;
  report.grad_norm = state.parameters->norm(state.gradient);
  report.learning_rate = learning_rate_at(state.options, step);
  const double limit = state.options.max_grad_norm;
  const bool clip = limit > 0 && report.grad_norm > limit;
  const auto direction = state.adam->direction(
      clip ? state.gradient * (limit / report.grad_norm) : state.gradient, step - state.steps_skipped);
  state.parameters->update(direction, report.learning_rate, state.options.weight_decay);
  state.parameters->publish();
  state.steps_done += 1;
  if (replica_check_is_due(state.options, state.steps_done)) state.parameters->check_replicas();

  for (const TrainingRow& row : global) report.tokens += row.tokens_in_pass();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace efface
