// Each method's loss against its formula, computed here row by row, and what five steps of it do.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "distributed/error.hpp"
#include "tests/core/unlearn/tiny.hpp"

namespace efface {
namespace {

using testing::TinyOptions;
using testing::TinyRun;

/// This rank alone, with a folder of its own.
struct AloneRun : TinyRun {
  AloneRun(const TinyOptions& options, const testing::TemporaryFolder& folder)
      : TinyRun(single_mesh(), options,
                folder.path() / ("alone." + std::to_string(testing::world().rank()))) {}
};

TinyOptions options_for(const std::string& method) {
  TinyOptions options;
  options.method = method;
  options.train = testing::tiny_train_options();
  return options;
}

/// log p of a row's labels by a forward pass of that row alone and a full softmax.
at::Tensor log_probabilities(const Transformer& model, const TokenRow& row) {
  const at::NoGradGuard no_grad;
  const auto batch = make_batch({row});
  const auto logits = model.logits(model.forward(batch).index_select(0, batch.label_positions));
  return at::log_softmax(logits.to(at::kDouble), -1).gather(1, batch.label_ids.unsqueeze(1)).squeeze(1);
}

double weighted_mean(const at::Tensor& values, double first_weight) {
  const double others = static_cast<double>(values.numel() - 1);
  return (first_weight * values[0].item<double>() + values.slice(0, 1).sum().item<double>()) /
         (first_weight + others);
}

double log_sigmoid(double x) { return -std::log1p(std::exp(-x)); }

/// Mean over the batch's rows of a role.
template <typename Value>
double mean_over(const StepBatch& batch, RowRole role, Value value) {
  double sum = 0;
  int rows = 0;
  for (const TrainingRow& row : batch.rows)
    if (row.role == role) sum += value(row.tokens), ++rows;
  return sum / rows;
}

TEST(Nsru, EachPartFollowsItsFormula) {
  const testing::TemporaryFolder folder;
  auto options = options_for("NSRU");
  options.args = {
      {"retain_kl_weight", 0.5}, {"safe_weight", 2}, {"suppression_weight", 3}, {"npo_beta", 0.7}};
  options.first_label_weight = 3;
  AloneRun run(options, folder);
  const auto batch = run.trainer->batch(0);
  const auto report = run.trainer->step();

  run.model.enable_adapters(false);
  const auto mean_nll = [&](const TokenRow& row) {
    return -weighted_mean(log_probabilities(run.model, row), 3);
  };
  EXPECT_NEAR(report.parts.at("safe"), mean_over(batch, RowRole::safe, mean_nll), 1e-4);
  EXPECT_NEAR(report.parts.at("retain"), mean_over(batch, RowRole::retain, mean_nll), 1e-4);
  EXPECT_NEAR(report.parts.at("suppression"), 2 / 0.7 * std::log(2.0), 1e-4) << "B = 0: the frozen model";
  EXPECT_NEAR(report.parts.at("retain_kl"), 0, 1e-6);
  EXPECT_NEAR(report.loss,
              2 * report.parts.at("safe") + 3 * report.parts.at("suppression") + report.parts.at("retain"),
              1e-3);
}

TEST(Nsru, AfterAStepNpoComparesWithTheFrozenModelAndKlIsPositive) {
  const testing::TemporaryFolder folder;
  auto options = options_for("NSRU");
  options.args = {{"retain_kl_weight", 1}, {"npo_beta", 0.7}};
  options.train.learning_rate = 3e-2;
  AloneRun run(options, folder);
  run.trainer->step();
  const auto batch = run.trainer->batch(1);
  const auto npo = mean_over(batch, RowRole::forget, [&](const TokenRow& row) {
    run.model.enable_adapters(false);
    const double reference = log_probabilities(run.model, row).sum().item<double>();
    run.model.enable_adapters(true);
    const double now = log_probabilities(run.model, row).sum().item<double>();
    return -2 / 0.7 * log_sigmoid(-0.7 * (now - reference));
  });
  const auto kl = mean_over(batch, RowRole::retain_kl, [&](const TokenRow& row) {
    const at::NoGradGuard no_grad;
    const auto tokens = make_batch({row});
    const auto log_softmax = [&](bool adapted) {
      run.model.enable_adapters(adapted);
      const auto hidden = run.model.forward(tokens).index_select(0, tokens.label_positions);
      return at::log_softmax(run.model.logits(hidden).to(at::kDouble), -1);
    };
    const auto frozen = log_softmax(false), adapted = log_softmax(true);
    return (frozen.exp() * (frozen - adapted)).sum(-1).mean().item<double>();
  });
  const auto report = run.trainer->step();
  EXPECT_NEAR(report.parts.at("suppression"), npo, 1e-4 * npo);
  EXPECT_GT(kl, 1e-6);
  EXPECT_NEAR(report.parts.at("retain_kl"), kl, 2e-3 * kl);
}

TEST(Nsru, EverySuppressionFollowsItsFormula) {
  const testing::TemporaryFolder folder;
  const std::map<std::string, std::function<double(const at::Tensor&)>> formulas = {
      {"ga", [](const at::Tensor& log_p) { return log_p.mean().item<double>(); }},
      {"unlikelihood",
       [](const at::Tensor& log_p) { return -(1 - log_p.exp()).log().mean().item<double>(); }},
      {"simnpo", [](const at::Tensor& log_p) { return -2 * log_sigmoid(-log_p.mean().item<double>()); }},
  };
  for (const auto& [suppression, formula] : formulas) {
    auto options = options_for("NSRU");
    options.choices = {{"suppression", suppression}};
    AloneRun run(options, folder);
    const auto batch = run.trainer->batch(0);
    run.model.enable_adapters(false);
    const double expected = mean_over(batch, RowRole::forget, [&](const TokenRow& row) {
      return formula(log_probabilities(run.model, row));
    });
    run.model.enable_adapters(true);
    EXPECT_NEAR(run.trainer->step().parts.at("suppression"), expected, 1e-4 * std::abs(expected) + 2e-6)
        << suppression;
  }
}

TEST(Nsru, AWeightOfZeroMakesItsRowsCostNothing) {
  const testing::TemporaryFolder folder;
  auto options = options_for("NSRU");
  options.args = {{"suppression_weight", 0}, {"retain_weight", 0}};
  AloneRun run(options, folder);
  for (const TrainingRow& row : run.trainer->batch(0).rows) EXPECT_EQ(row.role, RowRole::safe);
  const auto report = run.trainer->step();
  EXPECT_EQ(report.parts.at("suppression"), 0);
  EXPECT_FLOAT_EQ(report.loss, report.parts.at("safe"));
}

TEST(Baselines, EachFollowsItsFormula) {
  // At step 0 the model is the frozen one (B = 0), or W0 itself (FineTune).
  const testing::TemporaryFolder folder;
  struct Baseline {
    std::string method;
    MethodArgs args;
    RowRole role;
    std::string part;
    double weight;
    std::function<double(const at::Tensor&)> formula;
  };
  const auto nll = [](const at::Tensor& log_p) { return -log_p.mean().item<double>(); };
  const std::vector<Baseline> baselines = {
      {"GradAscent", {}, RowRole::forget, "forget", 1, [&](const auto& log_p) { return -nll(log_p); }},
      {"GradDiff",
       {{"gamma", 2}},
       RowRole::forget,
       "forget",
       2,
       [&](const auto& log_p) { return -nll(log_p); }},
      {"GradDiff", {{"alpha", 3}}, RowRole::retain, "retain", 3, nll},
      {"NPO",
       {{"beta", 0.4}},
       RowRole::forget,
       "forget",
       1,
       [](const auto&) { return 2 / 0.4 * std::log(2.0); }},
      {"SimNPO",
       {{"beta", 2}, {"delta", 0.5}, {"gamma", 0.7}},
       RowRole::forget,
       "forget",
       0.7,
       [&](const auto& log_p) { return -log_sigmoid(2 * (nll(log_p) - 0.5)); }},
      {"FineTune", {}, RowRole::retain, "nll", 1, nll},
  };
  for (const Baseline& baseline : baselines) {
    auto options = options_for(baseline.method);
    options.args = baseline.args;
    options.train.initial_noise = 0;
    AloneRun run(options, folder);
    const auto batch = run.trainer->batch(0);
    const double expected = mean_over(batch, baseline.role, [&](const TokenRow& row) {
      return baseline.formula(log_probabilities(run.model, row));
    });
    const auto report = run.trainer->step();
    EXPECT_NEAR(report.parts.at(baseline.part), expected, 1e-4 * std::abs(expected)) << baseline.method;
    double others = report.loss - baseline.weight * report.parts.at(baseline.part);
    for (const auto& [part, value] : report.parts)
      if (part != baseline.part) others -= value;  // the other weight is 1
    EXPECT_NEAR(others, 0, 1e-4 * std::abs(report.loss)) << baseline.method;
  }
}

TEST(IdkDpo, PrefersTheSafeResponseToTheAnswerOfTheSamePair) {
  const testing::TemporaryFolder folder;
  auto options = options_for("IdkDPO");
  options.args = {{"beta", 0.7}, {"gamma", 2}, {"alpha", 3}};
  options.train.learning_rate = 3e-2;
  AloneRun run(options, folder);
  EXPECT_NEAR(run.trainer->step().parts.at("forget"), 2 / 0.7 * std::log(2.0), 1e-4) << "the frozen model";
  const auto batch = run.trainer->batch(1);
  const auto log_ratio = [&](const TokenRow& row) {
    run.model.enable_adapters(false);
    const double reference = log_probabilities(run.model, row).sum().item<double>();
    run.model.enable_adapters(true);
    return log_probabilities(run.model, row).sum().item<double>() - reference;
  };
  double expected = 0, ratios = 0;
  int64_t tokens = 0;
  for (const TrainingRow& row : batch.rows) {
    tokens += static_cast<int64_t>(row.tokens.ids.size());
    if (row.role != RowRole::safe) continue;
    const double chosen = log_ratio(row.tokens), rejected = log_ratio(row.rejected.value());
    expected += -2 / 0.7 * log_sigmoid(0.7 * (chosen - rejected)) / 5;
    ratios += std::abs(chosen - rejected);
    tokens += static_cast<int64_t>(row.rejected->ids.size());
  }
  EXPECT_GT(ratios, 0.1) << "the first step moved too little to tell";
  const auto report = run.trainer->step();
  EXPECT_NEAR(report.parts.at("forget"), expected, 1e-4 * expected);
  EXPECT_NEAR(report.loss, 2 * report.parts.at("forget") + 3 * report.parts.at("retain"), 1e-3);
  EXPECT_EQ(report.tokens, tokens) << "both answers count";
}

TEST(IdkDpo, ARowWithoutTheAnswerThatItIsPreferredToIsRefused) {
  auto model = Transformer::random(testing::tiny_config(), single_mesh(), 3);
  const auto method = make_method("IdkDPO");
  EXPECT_THROW(Trainer(model, *method, testing::tiny_pool(96), {}, {}, testing::tiny_train_options(), {}, {}),
               Error);
}

/// h and h0 at a row's represented tokens, by a whole forward pass from the ids.
std::pair<at::Tensor, at::Tensor> window_outputs(const AloneRun& run, const TrainingRow& row) {
  const at::NoGradGuard no_grad;
  const auto batch = make_batch({row.tokens});
  const auto frozen = Transformer::random(testing::tiny_config(), single_mesh(), 3);
  const auto output = [&](const Transformer& model) {
    return model.run_layers(model.embed(batch), batch, 0, 3).slice(0, row.first_represented).to(at::kDouble);
  };
  return {output(run.model), output(frozen)};
}

TEST(Kuda, LossIsTheSaturatedDeviationOverTheRepresentedTokens) {
  const testing::TemporaryFolder folder;
  auto options = options_for("KUDA");
  options.args = {{"beta", 5}, {"alpha", 2}};
  AloneRun run(options, folder);
  double forget = 0, deviations = 0, retain = 0, forget_tokens = 0, retain_tokens = 0;
  const auto batch = run.trainer->batch(0);
  for (const TrainingRow& row : batch.rows) {
    const auto [h, h0] = window_outputs(run, row);
    if (row.role == RowRole::retain) {
      retain += (h - h0).square().mean(-1).sum().item<double>();
      retain_tokens += static_cast<double>(h.size(0));
      continue;
    }
    const auto cosine = (h * h0).sum(-1) / (h.norm(2, -1) * h0.norm(2, -1));
    for (int64_t t = 0; t < h.size(0); ++t) {
      const double d = 1 - cosine[t].item<double>();
      forget -= 2.0 / 5 * log_sigmoid(5 * d);
      deviations += d;
    }
    forget_tokens += static_cast<double>(h.size(0));
  }
  EXPECT_EQ(static_cast<double>(batch.global_tokens.at(RowRole::forget)), forget_tokens);
  const auto report = run.trainer->step();
  EXPECT_NEAR(report.parts.at("forget"), forget / forget_tokens, 1e-5);
  EXPECT_NEAR(report.parts.at("deviation"), deviations / forget_tokens, 1e-3 * deviations / forget_tokens);
  EXPECT_NEAR(report.parts.at("retain"), retain / retain_tokens, 1e-3 * retain / retain_tokens);
  EXPECT_NEAR(report.loss, report.parts.at("forget") + 2 * report.parts.at("retain"), 1e-5);
}

TEST(Rmu, SteersToOneVectorOfTheGivenLengthAndHoldsRetainText) {
  const testing::TemporaryFolder folder;
  auto options = options_for("RMU");
  options.args = {{"steering_coeff", 6}, {"gamma", 2}, {"alpha", 3}};
  AloneRun run(options, folder);
  const auto random =
      philox_uniform({0, "rmu_steering", ""}, 1, run.model.config().hidden_size).to(at::kDouble);
  const auto target = random / random.norm() * 6;
  at::Tensor forget = at::zeros({}, at::kDouble), retain = at::zeros({}, at::kDouble);
  const auto batch = run.trainer->batch(0);
  for (const TrainingRow& row : batch.rows) {
    const auto [h, h0] = window_outputs(run, row);
    if (row.role == RowRole::forget)
      forget += (h - target).square().mean(-1).sum() / static_cast<double>(batch.global_tokens.at(row.role));
    else
      retain += (h - h0).square().mean(-1).sum() / static_cast<double>(batch.global_tokens.at(row.role));
  }
  const auto report = run.trainer->step();
  EXPECT_NEAR(report.parts.at("forget"), forget.item<double>(), 1e-4 * forget.item<double>());
  EXPECT_NEAR(report.parts.at("retain"), retain.item<double>(), 1e-3 * retain.item<double>());
  EXPECT_NEAR(report.loss, 2 * report.parts.at("forget") + 3 * report.parts.at("retain"), 1e-4 * report.loss);
}

/// The first step's gradient of one down_proj, fp32 against fp64.
double cosine_of_first_gradients(double initial_noise, const testing::TemporaryFolder& folder, double* norm) {
  std::vector<at::Tensor> gradients;
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    auto options = options_for("KUDA");
    options.dtype = dtype;
    options.train.initial_noise = initial_noise;
    AloneRun run(options, folder);
    const auto report = run.trainer->step();
    if (dtype == at::kFloat) *norm = report.grad_norm;
    gradients.push_back(
        run.trainer->global_gradients().at("model.layers.1.mlp.down_proj.update").to(at::kDouble).flatten());
  }
  return at::dot(gradients[0], gradients[1]).item<double>() /
         std::max(1e-300, (gradients[0].norm() * gradients[1].norm()).item<double>());
}

TEST(Kuda, FirstGradientIsRealWithTheNoiseAndRoundingWithoutIt) {
  const testing::TemporaryFolder folder;
  double with_noise = 0, without = 0;
  EXPECT_GT(cosine_of_first_gradients(1e-3, folder, &with_noise), 0.99);
  EXPECT_LT(cosine_of_first_gradients(0, folder, &without), 0.99);
  EXPECT_GT(with_noise, 1e-6);
  EXPECT_LT(without, 0.1 * with_noise);
}

TEST(Kuda, InitialNoiseHasItsShareOfTheWeightsNormAndLiesInTheNullSpace) {
  const testing::TemporaryFolder folder;
  auto options = options_for("KUDA");
  options.train.initial_noise = 1e-3;
  AloneRun run(options, folder);
  const auto frozen = Transformer::random(testing::tiny_config(), single_mesh(), 3);
  for (const ModuleId& module : run.trainer->trained()) {
    const auto dw = run.trainer->global_update(module);
    EXPECT_NEAR((dw.norm() / frozen.weight(module).local.norm()).item<double>(), 1e-3, 1e-6);
    const auto n = dw.size(1);
    const auto projector = testing::random_projector(input_of(module), n, n / 3, single_mesh(), at::kFloat);
    EXPECT_LT(testing::relative_error(projector.apply(dw), dw), 1e-5);
  }
}

TEST(Methods, EveryLossIsFiniteAndFallsOverFiveSteps) {
  const testing::TemporaryFolder folder;
  for (const MethodDescription& description : methods()) {
    auto options = options_for(description.name);
    options.train.learning_rate = 5e-3;
    AloneRun run(options, folder);
    const double first = run.trainer->step().loss;
    double last = first;
    for (int step = 1; step < 6; ++step) last = run.trainer->step().loss;
    EXPECT_TRUE(std::isfinite(first) && std::isfinite(last)) << description.name;
    EXPECT_LT(last, first) << description.name;
  }
}

TEST(Methods, MicroBatchesGiveTheSameLossAndGradient) {
  const testing::TemporaryFolder folder;
  for (const char* method : {"NSRU", "KUDA", "IdkDPO"}) {
    auto options = options_for(method);
    AloneRun whole(options, folder);
    options.train.max_tokens_per_pass = 12;
    AloneRun split(options, folder);
    const auto a = whole.trainer->step(), b = split.trainer->step();
    EXPECT_NEAR(a.loss, b.loss, 1e-5 * std::abs(a.loss)) << method;
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-4 * a.grad_norm) << method;
  }
}

TEST(Methods, OnlyTheNamedWeightsChange) {
  const testing::TemporaryFolder folder;
  for (const char* method : {"NSRU", "KUDA", "FineTune"}) {
    AloneRun run(options_for(method), folder);
    for (int step = 0; step < 2; ++step) run.trainer->step();
    const auto frozen = Transformer::random(testing::tiny_config(), single_mesh(), 3);
    std::map<std::string, bool> may_change;
    if (std::string(method) != "NSRU")
      for (const ModuleId& module : run.trainer->trained())
        may_change[module_name(module) + ".weight"] = true;
    for (const Weight& weight : run.model.weights())
      EXPECT_EQ(at::equal(weight.local, frozen.weight(weight.name).local), !may_change.contains(weight.name))
          << method << " " << weight.name;
  }
}

TEST(Trainer, WarmsUpAndDecays) {
  const testing::TemporaryFolder folder;
  auto options = options_for("GradAscent");
  options.train.steps = 10;
  options.train.warmup_steps = 2;
  options.train.decay_fraction = 0.3;
  AloneRun run(options, folder);
  std::vector<double> rates;
  for (int step = 0; step < 10; ++step) rates.push_back(run.trainer->step().learning_rate / 1e-3);
  const std::vector<double> expected = {0.5, 1, 1, 1, 1, 1, 1, 1, 2.0 / 3, 1.0 / 3};
  for (int step = 0; step < 10; ++step) EXPECT_NEAR(rates[step], expected[step], 1e-12) << step;
}

TEST(Trainer, ClippingBoundsTheStepButNotTheReportedNorm) {
  const testing::TemporaryFolder folder;
  auto options = options_for("GradAscent");
  options.train.epsilon = 1;  // far above the gradient: Adam's step is then proportional to it
  AloneRun free(options, folder);
  options.train.max_grad_norm = 1e-3;
  AloneRun clipped(options, folder);
  const auto a = free.trainer->step(), b = clipped.trainer->step();
  EXPECT_DOUBLE_EQ(a.grad_norm, b.grad_norm);
  const ModuleId module{0, Projection::q};
  const double ratio =
      (clipped.trainer->global_update(module).norm() / free.trainer->global_update(module).norm())
          .item<double>();
  EXPECT_NEAR(ratio, 1e-3 / a.grad_norm, 0.1 * ratio);
}

TEST(Trainer, WeightDecayShrinksTheUpdateByItsFactor) {
  const testing::TemporaryFolder folder;
  for (const char* method : {"NSRU", "KUDA"}) {
    auto options = options_for(method);
    AloneRun plain(options, folder);
    options.train.weight_decay = 10;
    AloneRun decayed(options, folder);
    plain.trainer->step();
    decayed.trainer->step();
    const ModuleId module = plain.trainer->trained().back();
    const auto before = plain.trainer->global_update(module);
    if (std::string(method) == "KUDA") {
      // The first step decays the initial noise: compare with the run without a step's decay.
      AloneRun start(options, folder);
      const auto expected = before - start.trainer->global_update(module) * (1e-3 * 10);
      EXPECT_LT(testing::relative_error(decayed.trainer->global_update(module), expected), 1e-5);
    } else {
      EXPECT_TRUE(at::equal(decayed.trainer->global_update(module), before))
          << "dW was 0 before the first step";
    }
  }
}

}  // namespace
}  // namespace efface
