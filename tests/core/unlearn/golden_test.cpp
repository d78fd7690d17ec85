// NSRU's and KUDA's first steps on SmolLM2-135M against an independent PyTorch implementation (the shared
// data's goldens). EFFACE_SMOLLM2 names the model's folder.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/text/tokenizer.hpp"
#include "tests/core/unlearn/tiny.hpp"

namespace efface {
namespace {

using nlohmann::json;

constexpr double kEnergy = 0.9;

struct Golden {
  std::filesystem::path model;
  json values, fp64_values;           // of the reference in fp32 and in fp64
  std::vector<TokenRow> retain_rows;  // the 512 tokens of the covariance, as two rows
};

/// The inputs of all wanted linears over the retain rows, and from them bases and leaks. C = X^T X / N has
/// the non-zero eigenvalues of X X^T / N, [N, N]: N = 512 is the smaller side for `down`.
class RetainInputs {
 public:
  RetainInputs(const Golden& golden, const std::vector<InputId>& wanted) {
    const at::NoGradGuard no_grad;
    const auto model = Transformer::load(golden.model, single_mesh());
    Taps taps;
    taps.on_input = [&](const InputId& id, const at::Tensor& x) {
      if (std::find(wanted.begin(), wanted.end(), id) != wanted.end()) x_[id] = x.clone();
    };
    model.forward(make_batch(golden.retain_rows), &taps);
    // Each rank decomposes its share; the bases are then everybody's.
    int turn = 0;
    const auto& world = testing::world();
    for (const auto& [id, x] : x_) {
      const int owner = turn++ % world.size();
      auto values = at::zeros({x.size(1)}, at::kDouble);
      auto vectors = at::zeros({x.size(1), x.size(0)}, at::kFloat);
      if (owner == world.rank()) {
        const auto [ascending, v] =
            at::linalg_eigh(at::mm(x.to(at::kDouble), x.to(at::kDouble).t()) / x.size(0));
        const auto shared = std::min(x.size(0), x.size(1));
        const auto lambda = ascending.flip(0).clamp_min(0);
        values.narrow(0, 0, shared).copy_(lambda.narrow(0, 0, shared));
        const auto u =
            at::mm(x.to(at::kDouble).t(), v.flip(1)) / (lambda * x.size(0)).sqrt().clamp_min(1e-12);
        vectors.copy_(u);
      }
      world.broadcast(values, owner);
      world.broadcast(vectors, owner);
      Basis& basis = bases_[id];
      basis.id = id;
      basis.n = x.size(1);
      basis.k = choose_rank(values, {RankRule::Kind::energy, kEnergy}, input_name(id));
      basis.vectors = vectors.narrow(1, 0, basis.k).contiguous();
      basis.weights = at::ones({basis.k});
      basis.eigenvalues = values;
    }
  }

  const Basis& basis(const InputId& id) const { return bases_.at(id); }
  std::map<InputId, Projector> projectors(const Mesh& mesh, at::ScalarType dtype = at::kFloat) const {
    std::map<InputId, Projector> result;
    for (const auto& [id, basis] : bases_) result.emplace(id, Projector(basis, mesh, dtype));
    return result;
  }
  /// sqrt(tr(dW G dW^T) / tr G) / ||dW||
  double leak(const InputId& id, const at::Tensor& dw) const {
    const auto& x = x_.at(id);
    return (at::mm(x, dw.to(x.scalar_type()).t()).norm() / x.norm() / dw.norm()).item<double>();
  }

 private:
  std::map<InputId, at::Tensor> x_;  // [512, n]
  std::map<InputId, Basis> bases_;
};

TokenRow golden_row(const json& prompt_and_answer) {
  TokenRow row;
  row.ids = prompt_and_answer.at(0).get<std::vector<int64_t>>();
  row.prompt_length = static_cast<int64_t>(row.ids.size());
  for (int64_t id : prompt_and_answer.at(1).get<std::vector<int64_t>>()) row.ids.push_back(id);
  return row;
}

/// SmolLM2 has 9 heads and 3 key-value heads: 1 or 3 tensor ranks.
std::vector<std::pair<int, int>> golden_meshes() {
  if (const int size = testing::world().size(); size < 3) return {{1, size}};
  return {{3, 1}, {1, 3}};
}

TrainOptions golden_train_options() {
  TrainOptions train;
  train.steps = 4;
  train.warmup_steps = 0;
  train.decay_fraction = 0;
  train.learning_rate = 1e-3;
  return train;
}

class Goldens : public ::testing::Test {
 protected:
  void SetUp() override {
    EFFACE_NEEDS_SHARED_DATA(data);
    const char* model = std::getenv("EFFACE_SMOLLM2");
    if (!model || !std::filesystem::exists(model)) GTEST_SKIP() << "EFFACE_SMOLLM2 names no model folder";
    EFFACE_NEEDS_RANKS(testing::world().size() <= 3);
    at::set_num_threads(1);  // as the reference was computed
    golden_.model = model;
    std::ifstream file(data / "goldens" / "smollm2_reference.json");
    const json both = json::parse(file);
    golden_.values = both.at("fp32");
    golden_.fp64_values = both.at("fp64");
    std::ifstream text_file(data / "wikitext" / "wiki.valid.raw");
    std::string text(8000, '\0');
    text_file.read(text.data(), static_cast<std::streamsize>(text.size()));
    const auto ids = Tokenizer::load(golden_.model).encode(text);
    const auto first = golden_.values.at("cov_input").at("first16").get<std::vector<int64_t>>();
    ASSERT_TRUE(ids.size() > 512 && std::equal(first.begin(), first.end(), ids.begin()));
    for (int row = 0; row < 2; ++row)
      golden_.retain_rows.push_back({{ids.begin() + 256 * row, ids.begin() + 256 * (row + 1)}, 256});
  }

  void follow_kuda(at::ScalarType dtype, const json& expected, double tolerance);

  Golden golden_;
  testing::TemporaryFolder folder_;
};

TEST_F(Goldens, NsruFollowsTheReferenceForThreeSteps) {
  const json& expected = golden_.values.at("nsru");
  const json& rows = golden_.values.at("nsru_rows");
  TrainingPool pool;
  for (const auto& [key, role] :
       {std::pair{"safe", RowRole::safe}, {"sup", RowRole::forget}, {"ret", RowRole::retain}})
    for (const json& row : rows.at(key)) pool.groups[role].push_back({{golden_row(row), role}});
  const auto modules = modules_of(0, 30, LoraOptions().target_modules);
  const RetainInputs retain(golden_, inputs_of(modules));
  for (const auto& [name, k] : expected.at("k").items()) {
    const int layer = std::stoi(name);
    const std::string input = name.substr(name.find('.') + 1);
    const Input kind = input == "qkv"  ? Input::qkv
                       : input == "gu" ? Input::gate_up
                       : input == "o"  ? Input::o
                                       : Input::down;
    EXPECT_EQ(retain.basis({layer, kind}).k, k.get<int64_t>()) << name;
  }

  for (const auto& [tensor, data] : golden_meshes()) {
    const Mesh mesh = make_mesh(testing::world(), tensor, data);
    auto model = Transformer::load(golden_.model, mesh);
    const auto method = make_method("NSRU", {{"npo_beta", 0.1}});
    const auto references =
        ReferenceCache::build(folder_.path() / std::to_string(tensor), model, pool, *method);
    for (int i = 0; i < 2; ++i)
      EXPECT_NEAR(references.log_probability(pool.groups[RowRole::forget][i][0].tokens.row_id()),
                  expected.at("ref_logp")[i].get<double>(), 2e-5);
    TrainOptions train = golden_train_options();
    for (RowRole role : {RowRole::safe, RowRole::forget, RowRole::retain})
      train.rows_per_step[role] = static_cast<int64_t>(pool.groups[role].size());
    LoraOptions lora;
    lora.r = 4;
    lora.lora_alpha = 8;
    Trainer trainer(model, *method, pool, references, retain.projectors(mesh), train, lora, modules);
    std::map<ModuleId, std::pair<at::Tensor, at::Tensor>> start;
    for (const auto& [module, factors] : trainer.global_adapters()) {
      const int64_t in = factors.first.size(1);
      const auto i = at::arange(1, 5, at::kDouble).unsqueeze(1),
                 j = at::arange(1, in + 1, at::kDouble).unsqueeze(0);
      start[module] = {(at::sin(i * 0.37 + j * 0.11) / std::sqrt(static_cast<double>(in))).to(at::kFloat),
                       at::zeros_like(factors.second)};
    }
    trainer.set_adapters(start);
    for (int step = 0; step < 4; ++step) {
      if (step == 3) {
        const std::map<std::string, ModuleId> named = {{"0.self_attn.q_proj", {0, Projection::q}},
                                                       {"11.mlp.down_proj", {11, Projection::down}},
                                                       {"15.self_attn.o_proj", {15, Projection::o}}};
        for (const auto& [name, module] : named) {
          const double norm = expected.at("dW_norm_after_3").at(name).get<double>();
          EXPECT_NEAR(trainer.global_update(module).norm().item<double>(), norm, 1e-3 * norm) << name;
        }
        const double leak = expected.at("leak_15_o").get<double>();
        EXPECT_NEAR(retain.leak({15, Input::o}, trainer.global_update({15, Projection::o})), leak,
                    1e-3 * leak);
      }
      const json& golden = expected.at("steps").at(step);
      const auto report = trainer.step();
      const auto near = [&](const char* what, double value, const char* key, double tolerance) {
        const double reference = golden.at(key).get<double>();
        EXPECT_NEAR(value, reference, tolerance * reference)
            << what << " at step " << step << " on " << tensor << "x" << data;
      };
      near("loss", report.loss, "loss", 1e-5);
      near("safe", report.parts.at("safe"), "safe", 1e-5);
      near("suppression", report.parts.at("suppression"), "sup", 1e-5);
      near("retain", report.parts.at("retain"), "ret", 1e-5);
      near("gradient norm", report.grad_norm, "grad_norm", 1e-4);
    }
  }
}

/// KUDA's first steps in `dtype` against `expected`, to a relative tolerance on d and the gradient's norm.
void Goldens::follow_kuda(at::ScalarType dtype, const json& expected, double tolerance) {
  TrainingPool pool;
  for (const json& ids : expected.at("rows")) {
    TokenRow row{ids.get<std::vector<int64_t>>(), 0};
    row.prompt_length = static_cast<int64_t>(row.ids.size());
    pool.groups[RowRole::forget].push_back({{row, RowRole::forget}});
  }
  const auto modules = modules_of(1, 4, {Projection::down});
  const RetainInputs retain(golden_, inputs_of(modules));
  for (const ModuleId& module : modules)
    EXPECT_EQ(retain.basis(input_of(module)).k,
              expected.at("k").at(std::to_string(module.layer)).get<double>());

  for (const auto& [tensor, data] : golden_meshes()) {
    const Mesh mesh = make_mesh(testing::world(), tensor, data);
    auto model = Transformer::load(golden_.model, mesh, {dtype});
    const auto frozen = Transformer::load(golden_.model, single_mesh(), {dtype});
    const auto method = make_method("KUDA", {{"beta", 1}}, {}, {1, 4});
    const auto references = ReferenceCache::build(
        folder_.path() / (at::toString(dtype) + std::to_string(tensor)), model, pool, *method);
    TrainOptions train = golden_train_options();
    train.rows_per_step = {{RowRole::forget, 2}};
    Trainer trainer(model, *method, pool, references, retain.projectors(mesh, dtype), train, {}, modules);
    std::map<ModuleId, at::Tensor> start;
    for (const ModuleId& module : modules) {
      const auto w0 = frozen.weight(module).local;
      const auto i = at::arange(1, w0.size(0) + 1, at::kDouble).unsqueeze(1);
      const auto j = at::arange(1, w0.size(1) + 1, at::kDouble).unsqueeze(0);
      const auto u = retain.basis(input_of(module)).vectors.to(at::kDouble);
      auto d = at::sin(i * j * 0.013 + i - j);
      d = d - at::mm(at::mm(d, u), u.t());
      start[module] = (d * (1e-2 * w0.norm().item<double>() / d.norm().item<double>())).to(dtype);
    }
    trainer.set_updates(start);
    for (int step = 0; step < 4; ++step) {
      if (step == 3)
        for (const ModuleId& module : modules) {
          const std::string layer = std::to_string(module.layer);
          const auto dw = trainer.global_update(module);
          const double norm = expected.at("dW_norm_after_3").at(layer).get<double>();
          const double leak = expected.at("leak").at(layer).get<double>();
          EXPECT_NEAR(dw.norm().item<double>(), norm, 1e-3 * norm) << layer;
          EXPECT_NEAR(retain.leak(input_of(module), dw), leak, 1e-3 * leak) << layer;
        }
      const json& golden = expected.at("steps").at(step);
      const auto report = trainer.step();
      const double loss = golden.at("loss").get<double>(), d = golden.at("mean_d").get<double>();
      const double norm = golden.at("grad_norm").get<double>();
      EXPECT_NEAR(report.loss, loss, 1e-5 * loss) << step;
      EXPECT_NEAR(report.parts.at("deviation"), d, tolerance * d) << step;
      EXPECT_NEAR(report.grad_norm, norm, tolerance * norm) << step;
    }
  }
}

TEST_F(Goldens, KudaFollowsTheReferenceForThreeSteps) {
  // The reference's own fp32 and fp64 differ by up to 3.4e-4 here: d is a small difference of unit vectors.
  follow_kuda(at::kFloat, golden_.values.at("kuda"), 2e-3);
}

TEST_F(Goldens, KudaInFp64FollowsTheReferencesFp64) {
  follow_kuda(at::kDouble, golden_.fp64_values.at("kuda"), 1e-4);
}

}  // namespace
}  // namespace efface
