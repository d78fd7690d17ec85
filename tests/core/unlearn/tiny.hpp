// A small random model, rows for it, projectors and a trainer on any mesh: what this room's tests share.
#pragma once

#include <ATen/Parallel.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/subspace/covariance.hpp"
#include "core/unlearn/trainer.hpp"
#include "distributed/philox.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {

/// 8 heads and 4 key-value heads divide over 1, 2 and 4 tensor ranks; 9 and 3 over 1 and 3.
inline ModelConfig tiny_config(bool for_three = world().size() == 3) {
  ModelConfig config;
  config.heads = for_three ? 9 : 8;
  config.kv_heads = for_three ? 3 : 4;
  config.head_dim = 4;
  config.hidden_size = config.heads * config.head_dim;
  config.intermediate_size = for_three ? 72 : 64;
  config.layers = 4;
  config.vocab_size = 96;
  config.max_positions = 64;
  return config;
}

/// (tensor, data) sizes that fill the world.
inline std::vector<std::pair<int, int>> mesh_shapes() {
  switch (world().size()) {
    case 1:
      return {{1, 1}};
    case 2:
      return {{1, 2}, {2, 1}};
    case 3:
      return {{1, 3}, {3, 1}};
    case 4:
      return {{2, 2}, {4, 1}, {1, 4}};
  }
  return {};
}

/// A folder of this test run, the same on every rank, removed at the end by rank 0.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const std::string name = "efface_unlearn." + std::to_string(::getpid());
    path_ = std::filesystem::temp_directory_path() / world().broadcast(name, 0);
    if (world().rank() == 0) std::filesystem::create_directories(path_);
    world().barrier();
  }
  ~TemporaryFolder() {
    world().barrier();
    std::error_code ignored;
    if (world().rank() == 0) std::filesystem::remove_all(path_, ignored);
    world().barrier();
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline TokenRow random_row(uint64_t seed, int64_t prompt, int64_t labels, int64_t vocab) {
  const auto u = philox_uniform({seed, "row", ""}, 1, prompt + labels);
  TokenRow row;
  for (int64_t i = 0; i < prompt + labels; ++i)
    row.ids.push_back(static_cast<int64_t>(u[0][i].item<double>() * static_cast<double>(vocab)));
  row.prompt_length = prompt;
  return row;
}

/// Five records a role, of different lengths; the first forget record has two wordings. As pairs, safe rows
/// have an answer that they are preferred to.
inline TrainingPool tiny_pool(int64_t vocab, double first_label_weight = 1, bool as_pairs = false) {
  TrainingPool pool;
  uint64_t seed = 100;
  for (RowRole role : {RowRole::forget, RowRole::safe, RowRole::retain, RowRole::retain_kl})
    for (int64_t i = 0; i < 5; ++i) {
      auto& record = pool.groups[role].emplace_back();
      for (int wording = 0; wording < (role == RowRole::forget && i == 0 ? 2 : 1); ++wording)
        record.push_back({random_row(seed++, 3 + i % 3, 2 + i, vocab), role, first_label_weight});
      record.front().first_represented = 1 + i % 3;
      if (as_pairs && role == RowRole::safe)
        record.front().rejected = random_row(seed + 1000, 3 + i % 3, 6 - i, vocab);
    }
  return pool;
}

/// A hard projector with k of n directions, random, the same on every mesh.
inline Projector random_projector(const InputId& id, int64_t n, int64_t k, const Mesh& mesh,
                                  at::ScalarType dtype) {
  const auto random = philox_normal({7, "basis", input_name(id)}, n, n).to(at::kDouble);
  const auto vectors = std::get<0>(at::linalg_qr(random));
  const auto values = at::linspace(2, 1, n, at::kDouble);
  return Projector(make_basis(id, values, vectors, k, {}), mesh, dtype);
}

struct TinyOptions {
  std::string method = "NSRU";
  MethodArgs args;
  MethodChoices choices;
  at::ScalarType dtype = at::kFloat;
  bool project = true;
  uint64_t model_seed = 3;
  double first_label_weight = 1;
  TrainOptions train;
};

inline TrainOptions tiny_train_options() {
  TrainOptions train;
  train.steps = 20;
  train.warmup_steps = 0;
  train.decay_fraction = 0;
  train.learning_rate = 1e-3;
  train.initial_noise = 1e-2;
  for (RowRole role : {RowRole::forget, RowRole::safe, RowRole::retain, RowRole::retain_kl})
    train.rows_per_step[role] = 5;
  return train;
}

/// Everything a training run owns. `folder` holds its references.
struct TinyRun {
  /// Threads cost more than they give on matrices this small.
  TinyRun(const Mesh& mesh, TinyOptions options, const std::filesystem::path& folder)
      : model(Transformer::random(tiny_config(), mesh, options.model_seed, {options.dtype})),
        method(make_method(options.method, options.args, options.choices, {1, 3})),
        pool(tiny_pool(model.config().vocab_size, options.first_label_weight, method->reads_pairs())) {
    at::set_num_threads(1);
    const bool window = method->trains() == TrainedParameters::down_proj_window;
    const auto trained =
        window ? modules_of(1, 3, {Projection::down}) : modules_of(0, 4, LoraOptions().target_modules);
    std::map<InputId, Projector> projectors;
    if (options.project)
      for (const InputId& id : inputs_of(trained)) {
        const int64_t n = input_width(id, model.config());
        projectors.emplace(id, random_projector(id, n, n / 3, mesh, options.dtype));
      }
    references = ReferenceCache::build(folder, model, pool, *method);
    LoraOptions lora;
    lora.r = 4;
    lora.lora_alpha = 8;
    trainer =
        std::make_unique<Trainer>(model, *method, pool, references, projectors, options.train, lora, trained);
  }

  Transformer model;
  std::unique_ptr<Method> method;
  TrainingPool pool;
  ReferenceCache references;
  std::unique_ptr<Trainer> trainer;
};

}  // namespace efface::testing
