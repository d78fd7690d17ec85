// efface's side of against_transformers.py: the same commands as reference_worker.py, one JSON line each.
//   step_worker MODEL ROWS.safetensors fp32|bf16
// Under mpirun the rows are dealt over data ranks; rank 0 reads the commands and prints the slowest rank's
// time.

#include <ATen/ATen.h>

#include <cstdio>
#include <string>

#include "benchmarks/worker.hpp"
#include "core/model/transformer.hpp"
#include "core/storage/safetensors.hpp"
#include "core/subspace/covariance.hpp"
#include "core/unlearn/trainer.hpp"
#include "distributed/error.hpp"
#include "distributed/mesh.hpp"

namespace efface {
namespace {

/// Forward passes of one "covariance": as reference_worker.py's.
constexpr int kCovariancePasses = 8;

/// The rows of the file; labels on everything but the first token, or on the answers only.
std::vector<TokenRow> read_rows(const std::string& file, bool answers_only) {
  const auto values = SafetensorsReader::open_file(file);
  const auto ids = values.read("ids"), lengths = values.read("lengths"), prompts = values.read("prompts");
  std::vector<TokenRow> rows;
  int64_t begin = 0;
  for (int64_t i = 0; i < lengths.numel(); ++i) {
    const int64_t length = lengths[i].item<int64_t>();
    TokenRow row;
    row.ids.assign(ids.data_ptr<int64_t>() + begin, ids.data_ptr<int64_t>() + begin + length);
    row.prompt_length = answers_only ? prompts[i].item<int64_t>() : 1;
    rows.push_back(row);
    begin += length;
  }
  return rows;
}

std::vector<TokenRow> dealt(const std::vector<TokenRow>& rows, const Mesh& mesh) {
  std::vector<TokenRow> mine;
  for (size_t i = 0; i < rows.size(); ++i)
    if (static_cast<int>(i) % mesh.data_size() == mesh.data_rank()) mine.push_back(rows[i]);
  return mine;
}

class Worker {
 public:
  Worker(const std::string& folder, std::string rows_file, at::ScalarType dtype, const Mesh& mesh)
      : rows_file_(std::move(rows_file)),
        dtype_(dtype),
        mesh_(mesh),
        model_(Transformer::load(folder, mesh, {dtype})),
        batch_(make_batch(dealt(read_rows(rows_file_, false), mesh))) {}

  void operator()(const std::string& command) {
    if (command == "product") {
      for (int i = 0; i < 50; ++i) at::mm_out(product_, a_, b_);
    } else if (command == "forward") {
      at::NoGradGuard no_grad;
      model_.run_layers(model_.embed(batch_), batch_);
    } else if (command == "covariance") {
      covariance();
    } else if (command == "lora_all" || command == "lora_answer") {
      trainer(command == "lora_answer").step();
    } else {
      throw Error(ErrorClass::usage, "unknown command " + command);
    }
  }

 private:
  void covariance() {
    at::NoGradGuard no_grad;
    std::vector<InputId> inputs;
    for (int layer = 0; layer < model_.config().layers; ++layer)
      for (const Input input : kInputs) inputs.push_back({layer, input});
    CovarianceOptions options;
    options.skip_sinks = false;  // every token, as the other side does
    CovarianceAccumulator accumulator(model_.config(), mesh_, inputs, options);
    for (int pass = 0; pass < kCovariancePasses; ++pass) {
      const Taps& taps = accumulator.taps(batch_);
      model_.run_layers(model_.embed(batch_), batch_, 0, -1, &taps);
    }
    accumulator.finish();
  }

  /// The product's own loop with plain fine-tuning as the method, so that a step is what a run does. One at a
  /// time: a trainer owns the model's adapters.
  Trainer& trainer(bool answers_only) {
    if (trainer_ && answers_only == answers_only_) return *trainer_;
    TrainingPool pool;
    for (const auto& row : read_rows(rows_file_, answers_only))
      pool.groups[RowRole::retain].push_back({{row, RowRole::retain, 1}});
    TrainOptions options;
    options.steps = 1'000'000;
    options.learning_rate = 1e-5;
    options.rows_per_step = {{RowRole::retain, static_cast<int64_t>(pool.groups[RowRole::retain].size())}};
    options.parameters = TrainedParameters::lora;
    options.projection = ProjectionPoint::none;
    trainer_.reset();
    model_.clear_adapters();
    std::vector<Projection> all(std::begin(kProjections), std::end(kProjections));
    trainer_ = std::make_unique<Trainer>(model_, *method_, pool, ReferenceCache(),
                                         std::map<InputId, Projector>(), options, LoraOptions(),
                                         modules_of(0, static_cast<int>(model_.config().layers), all));
    answers_only_ = answers_only;
    return *trainer_;
  }

  std::string rows_file_;
  at::ScalarType dtype_;
  Mesh mesh_;
  Transformer model_;
  RaggedBatch batch_;
  at::Tensor a_ = at::randn({1024, 1536}).to(dtype_), b_ = at::randn({1536, 1536}).to(dtype_),
             product_ = at::empty({1024, 1536}, dtype_);
  std::unique_ptr<Method> method_ = make_method("FineTune");
  std::unique_ptr<Trainer> trainer_;
  bool answers_only_ = false;
};

void serve(int argc, char** argv, const Communicator& world) {
  if (argc != 4) throw Error(ErrorClass::usage, "step_worker MODEL ROWS.safetensors fp32|bf16");
  const Mesh mesh = make_mesh(world, 1, 0);
  Worker worker(argv[1], argv[2], std::string(argv[3]) == "bf16" ? at::kBFloat16 : at::kFloat, mesh);
  std::string warmed;
  serve_commands(world, [&](const std::string& command) {
    if (command != warmed && command.rfind("lora", 0) == 0) worker(command);  // a new trainer: not timed
    warmed = command;
    const double seconds = timed(world, [&] { worker(command); }) / (command == "product" ? 50 : 1);
    if (mesh.is_root()) std::printf("{\"seconds\": %.6f}\n", seconds), std::fflush(stdout);
  });
}

}  // namespace
}  // namespace efface

int main(int argc, char** argv) {
  return efface::run_worker(argc, argv, "step_worker",
                            [&](const efface::Communicator& world) { efface::serve(argc, argv, world); });
}
