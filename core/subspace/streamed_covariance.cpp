#include "core/subspace/streamed_covariance.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "core/storage/hdf5_file.hpp"
#include "core/subspace/token_staging.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

std::string gib_text(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
  return text;
}

/// Hidden states at one boundary, a dataset a pass. The tensor group's first rank has the file.
class BoundaryStates {
 public:
  BoundaryStates(const std::filesystem::path& folder, int layer, const Mesh& mesh)
      : mesh_(mesh),
        file_path_(folder / ("hidden-" + std::to_string(layer) + "-data-" + std::to_string(mesh.data_rank()) +
                             ".h5")) {
    if (mesh.tensor_rank() == 0) file_ = Hdf5File::create(file_path_);
  }

  void write(size_t pass, const at::Tensor& hidden) {
    if (file_ && hidden.size(0) > 0) file_->write("pass-" + std::to_string(pass), hidden.cpu());
  }
  /// What was written can be read from now on.
  void close() {
    if (!file_) return;
    file_->close();
    file_ = Hdf5File::open(file_path_);
  }
  at::Tensor read(size_t pass, int64_t tokens, int64_t width, at::ScalarType dtype) const {
    if (tokens == 0) return at::empty({0, width}, at::TensorOptions().dtype(dtype).device(mesh_.device));
    at::Tensor hidden = file_ ? file_->read("pass-" + std::to_string(pass))
                              : at::empty({tokens, width}, at::TensorOptions().dtype(dtype));
    if (mesh_.tensor_size() > 1) {
      hidden = hidden.to(mesh_.device);
      mesh_.tensor.broadcast(hidden, 0);
    }
    return hidden.to(mesh_.device);
  }
  void remove() {
    if (!file_) return;
    file_.reset();
    std::filesystem::remove(file_path_);
  }

 private:
  Mesh mesh_;
  std::filesystem::path file_path_;
  std::optional<Hdf5File> file_;
};

}  // namespace

std::vector<TokenRow> evenly_dealt(std::vector<TokenRow> rows, int64_t kept) {
  constexpr std::ptrdiff_t kBlock = 32;
  auto block = rows.begin();
  for (int64_t held = 0; block != rows.end() && held < kept; ++block)
    held += static_cast<int64_t>(block->ids.size()) - 1;
  for (bool down = true; block != rows.end(); down = !down) {
    const auto end = block + std::min(kBlock, rows.end() - block);
    std::stable_sort(block, end, [down](const TokenRow& a, const TokenRow& b) {
      return down ? a.ids.size() > b.ids.size() : a.ids.size() < b.ids.size();
    });
    block = end;
  }
  return rows;
}

int64_t CovarianceMemory::all() const {
  int64_t bytes = shared;
  for (const auto& [layer, own] : of_layers) bytes += own;
  return bytes;
}

CovarianceMemory covariance_memory(const ModelConfig& config, const Mesh& mesh,
                                   const std::vector<InputId>& inputs, const CovarianceOptions& options,
                                   bool heldout, int64_t largest_pass, at::ScalarType dtype) {
  CovarianceMemory memory;
  const int64_t value = static_cast<int64_t>(at::elementSize(dtype));
  const int64_t matrices = heldout ? 2 : 1;
  int64_t widest = 0, largest_matrix = 0;
  for (const InputId& id : inputs) {
    const int64_t n = input_width(id, config);
    const auto [begin, end] = even_range(n, 0, mesh.tensor_size());  // the first rank's share is the largest
    const int64_t elements = (end - begin) * n;
    int64_t bytes = matrices * (elements * 8 + kFewestTokens * n * 4);
    if (options.caps(id.input)) bytes += (options.cap_sample + largest_pass) * n * value;
    if (memory.of_layers.empty() || memory.of_layers.back().first != id.layer)
      memory.of_layers.emplace_back(id.layer, 0);
    memory.of_layers.back().second += bytes;
    widest = std::max(widest, n);
    largest_matrix = std::max(largest_matrix, elements);
  }
  // Three buffers of tokens, what a pass selects and gathers of one input, and the fp32 copies that are
  // written.
  memory.shared =
      3 * kProductTokens * widest * 4 + 2 * largest_pass * widest * value + matrices * largest_matrix * 4;
  return memory;
}

std::vector<std::vector<InputId>> groups_within(const CovarianceMemory& memory,
                                                const std::vector<InputId>& inputs, int64_t budget) {
  std::map<int, size_t> group_of;
  int64_t used = memory.shared;
  size_t groups = 0;
  for (const auto& [layer, bytes] : memory.of_layers) {
    if (memory.shared + bytes > budget)
      throw Error(ErrorClass::recipe,
                  "the covariances of layer " + std::to_string(layer) + " alone take " +
                      gib_text(memory.shared + bytes) + " a rank, more than the " + gib_text(budget) +
                      " there are",
                  "raise 'nullspace.memory', or use more tensor ranks (parallel.tensor)");
    if (groups == 0 || used + bytes > budget) {
      ++groups;
      used = memory.shared;
    }
    used += bytes;
    group_of[layer] = groups - 1;
  }
  std::vector<std::vector<InputId>> result(groups);
  for (const InputId& id : inputs) result[group_of.at(id.layer)].push_back(id);
  return result;
}

int64_t stream_work(const std::vector<std::vector<InputId>>& groups, const std::vector<RetainPass>& passes) {
  int64_t tokens = 0;
  for (const auto& pass : passes) tokens += token_count(pass.rows);
  return groups.empty() ? 0 : tokens * (groups.back().back().layer + 1);
}

void stream_covariances(const Transformer& model, const std::vector<std::vector<InputId>>& groups,
                        const std::vector<RetainPass>& passes, const CovarianceOptions& options,
                        const std::filesystem::path& scratch, const std::function<void(Covariance&)>& take,
                        const std::function<void(int64_t)>& progress) {
  const at::NoGradGuard no_grad;
  const Mesh& mesh = model.mesh();
  if (groups.size() > 1) {
    if (mesh.is_root()) std::filesystem::create_directories(scratch);
    mesh.world.barrier();
  }
  std::optional<BoundaryStates> below;
  int begin = 0;
  int64_t done = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    CovarianceAccumulator accumulator(model.config(), mesh, groups[g], options);
    const int end = accumulator.last_layer() + 1;
    std::optional<BoundaryStates> above;
    if (g + 1 < groups.size()) above.emplace(scratch, end, mesh);
    for (size_t pass = 0; pass < passes.size(); ++pass) {
      const RaggedBatch batch = make_batch(passes[pass].rows, mesh.device);
      const Taps& taps = accumulator.taps(batch, passes[pass].heldout);
      at::Tensor hidden = below ? below->read(pass, batch.tokens(), model.config().hidden_size, model.dtype())
                                : model.embed(batch, &taps);
      hidden = model.run_layers(hidden, batch, begin, end, &taps);
      if (above) above->write(pass, hidden);
      done += batch.tokens() * (end - begin);
      if (progress) progress(done);
    }
    if (below) below->remove();
    if (above) above->close();
    below = std::move(above);
    begin = end;
    accumulator.finish_each(take);
  }
  mesh.world.barrier();
  if (groups.size() > 1 && mesh.is_root()) std::filesystem::remove(scratch);
}

}  // namespace efface
