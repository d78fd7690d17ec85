#include "core/subspace/streamed_covariance.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>

#include "core/subspace/stream_checkpoint.hpp"
#include "core/subspace/token_staging.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

std::string gib_text(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
  return text;
}

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
    if (std::none_of(inputs.begin(), inputs.end(), [&](const InputId& id) { return id.layer == layer; }))
      continue;  // all of it is there already
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
                        const std::filesystem::path& folder, const StreamHooks& hooks) {
  const at::NoGradGuard no_grad;
  const Mesh& mesh = model.mesh();
  std::vector<int64_t> tokens;
  for (const auto& pass : passes) tokens.push_back(token_count(pass.rows));
  StreamCheckpoint checkpoint(folder, mesh, tokens);
  int begin = groups.empty() ? 0 : checkpoint.boundary_below(groups.front().front().layer);
  int64_t done = begin * std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
  for (size_t g = 0; g < groups.size(); ++g) {
    std::optional<CovarianceAccumulator> accumulator;
    const auto start_over = [&] { accumulator.emplace(model.config(), mesh, groups[g], options); };
    start_over();
    const int end = accumulator->last_layer() + 1;
    const bool last = g + 1 == groups.size();
    size_t first = 0;
    if (checkpoint.has_sums(groups[g], begin)) {
      if (const auto pass = checkpoint.restore(groups[g], *accumulator))
        first = *pass;
      else
        start_over();
    }
    for (const auto& note : checkpoint.take_notes())
      if (hooks.note) hooks.note(note);
    if (!last) checkpoint.begin_boundary(end, first);
    for (size_t pass = 0; pass < first; ++pass) done += tokens[pass] * (end - begin);
    for (size_t pass = first; pass < passes.size(); ++pass) {
      const RaggedBatch batch = make_batch(passes[pass].rows, mesh.device);
      const Taps& taps = accumulator->taps(batch, passes[pass].heldout);
      at::Tensor hidden = begin > 0
                              ? checkpoint.read_hidden(begin, pass, model.config().hidden_size, model.dtype())
                              : model.embed(batch, &taps);
      hidden = model.run_layers(hidden, batch, begin, end, &taps);
      if (!last) checkpoint.write_hidden(pass, hidden);
      done += tokens[pass] * (end - begin);
      if (hooks.progress) hooks.progress(done);
      if (pass + 1 < passes.size() && hooks.save_due && hooks.save_due()) {
        if (accumulator->can_save()) checkpoint.save(groups[g], begin, pass + 1, *accumulator);
        if (hooks.saved) hooks.saved();
      }
    }
    if (!last) checkpoint.end_boundary();
    accumulator->finish_each(hooks.take);
    if (hooks.group_done) hooks.group_done();
    if (!last) checkpoint.keep_only(end);
    begin = end;
  }
  checkpoint.remove();
}

}  // namespace efface
