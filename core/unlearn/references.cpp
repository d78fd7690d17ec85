#include "core/unlearn/references.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <regex>
#include <string>
#include <unordered_map>

#include "core/storage/hdf5_file.hpp"
#include "core/unlearn/data_order.hpp"
#include "core/unlearn/method.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

constexpr int64_t kTokensPerPass = 4096;

std::string log_probability_kind(const std::string& dtype) { return dtype + ".log_probability"; }
std::string label_hidden_kind(const std::string& dtype) { return dtype + ".label_hidden"; }
std::string below_kind(const std::string& dtype, int layer) {
  return dtype + ".input." + std::to_string(layer);
}
std::string representation_kind(const std::string& dtype, int end) {
  return dtype + ".output." + std::to_string(end - 1);
}

std::vector<std::string> kinds_of(const ReferenceNeeds& needs, const std::string& dtype) {
  std::vector<std::string> kinds;
  if (needs.log_probability) kinds.push_back(log_probability_kind(dtype));
  if (needs.label_hidden) kinds.push_back(label_hidden_kind(dtype));
  if (needs.below_window) kinds.push_back(below_kind(dtype, needs.window_begin));
  if (needs.representation) kinds.push_back(representation_kind(dtype, needs.window_end));
  return kinds;
}

/// Where a row's value lies: rows [begin, end) of "<kind>/<chunk>/values" of a file.
struct Location {
  size_t file = 0;
  std::string dataset;
  int64_t begin = 0, end = 0;
};

/// One kind's values of the rows of one pass.
struct Chunk {
  std::vector<int64_t> rows;     // row ids, bit for bit
  std::vector<int64_t> offsets;  // [rows + 1]: where a row's values begin
  at::Tensor values;             // [n, hidden] or [n], on the host
};

std::vector<std::filesystem::path> reference_files(const std::filesystem::path& folder) {
  static const std::regex name(R"(references\.\d+\.rank\d+\.h5)");
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (std::regex_match(entry.path().filename().string(), name)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

struct ReferenceCache::State {
  std::string dtype;
  std::vector<Hdf5File> files;
  std::map<std::string, std::unordered_map<uint64_t, Location>> locations;  // by kind

  explicit State(const std::filesystem::path& folder, std::string model_dtype)
      : dtype(std::move(model_dtype)) {
    for (const auto& path : reference_files(folder)) {
      files.push_back(Hdf5File::open(path));
      for (const std::string& kind : files.back().list()) index(kind);
    }
  }

  void index(const std::string& kind) {
    const Hdf5File& file = files.back();
    for (const std::string& chunk : file.list(kind)) {
      const std::string group = kind + "/" + chunk;
      const auto rows = file.read(group + "/rows"), offsets = file.read(group + "/offsets");
      for (int64_t i = 0; i < rows.numel(); ++i)
        locations[kind][static_cast<uint64_t>(rows[i].item<int64_t>())] = {
            files.size() - 1, group + "/values", offsets[i].item<int64_t>(), offsets[i + 1].item<int64_t>()};
    }
  }

  bool has(const std::string& kind, uint64_t row) const {
    const auto found = locations.find(kind);
    return found != locations.end() && found->second.contains(row);
  }

  at::Tensor read(const std::string& kind, uint64_t row) const {
    if (!has(kind, row))
      throw Error(ErrorClass::storage,
                  "the reference cache has no " + kind + " of row " + std::to_string(row),
                  "delete the run's reference files and run again");
    const Location& place = locations.at(kind).at(row);
    return files[place.file].read_rows(place.dataset, place.begin, place.end);
  }
};

namespace {

/// Runs the frozen model on one pass and appends what is asked for, kind by kind in the order of kinds_of().
std::vector<Chunk> compute(const Transformer& model, const std::vector<TokenRow>& rows,
                           const ReferenceNeeds& needs) {
  const at::NoGradGuard no_grad;
  const RaggedBatch batch = make_batch(rows, model.mesh().device);
  const auto dtype = model.dtype() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<Chunk> chunks;
  const auto keep = [&](const at::Tensor& values, const std::vector<int64_t>& offsets) {
    Chunk& chunk = chunks.emplace_back();
    for (uint64_t id : batch.row_ids) chunk.rows.push_back(static_cast<int64_t>(id));
    chunk.offsets = offsets;
    chunk.values = values.to(at::kCPU, dtype).contiguous();
  };

  at::Tensor below, representation, label_hidden;
  auto hidden = model.embed(batch);
  int layer = 0;
  const auto run_to = [&](int end) {
    hidden = model.run_layers(hidden, batch, layer, end);
    layer = end;
    return hidden;
  };
  if (needs.below_window) below = run_to(needs.window_begin);
  if (needs.representation) representation = run_to(needs.window_end);
  if (needs.log_probability || needs.label_hidden)
    label_hidden = model.final_norm(run_to(static_cast<int>(model.config().layers)))
                       .index_select(0, batch.label_positions);

  if (needs.log_probability) {
    const auto label_values = model.token_log_probabilities(label_hidden, batch.label_ids);
    std::vector<int64_t> one_each(batch.rows() + 1);
    for (int64_t r = 0; r <= batch.rows(); ++r) one_each[r] = r;
    keep(at::zeros({batch.rows()}, label_values.options()).index_add(0, batch.label_rows, label_values),
         one_each);
  }
  if (needs.label_hidden) keep(label_hidden, batch.label_offsets);
  if (needs.below_window) keep(below, batch.offsets);
  if (needs.representation) keep(representation, batch.offsets);
  return chunks;
}

/// The rows that lack a value, each once, in an order that does not depend on the mesh.
std::vector<TokenRow> missing_rows(const std::vector<TokenRow>& rows, const std::vector<std::string>& kinds,
                                   const std::function<bool(const std::string&, uint64_t)>& has) {
  std::map<uint64_t, const TokenRow*> missing;
  for (const TokenRow& row : rows) {
    const uint64_t id = row.row_id();
    for (const std::string& kind : kinds)
      if (!has(kind, id)) missing[id] = &row;
  }
  std::vector<TokenRow> result;
  for (const auto& entry : missing) result.push_back(*entry.second);
  return result;
}

/// This data rank's rows of `rows`, in passes of bounded size.
std::vector<std::vector<TokenRow>> passes_of_rank(const std::vector<TokenRow>& rows, const Mesh& mesh) {
  std::vector<int64_t> tokens;
  for (const TokenRow& row : rows) tokens.push_back(static_cast<int64_t>(row.ids.size()));
  std::vector<std::vector<TokenRow>> passes;
  int64_t in_pass = 0;
  const auto dealt = deal_by_tokens(tokens, mesh.data_size());
  for (size_t i : dealt[mesh.data_rank()]) {
    if (passes.empty() || in_pass + tokens[i] > kTokensPerPass) {
      passes.emplace_back();
      in_pass = 0;
    }
    passes.back().push_back(rows[i]);
    in_pass += tokens[i];
  }
  return passes;
}

}  // namespace

ReferenceCache ReferenceCache::build(const std::filesystem::path& folder, const Transformer& model,
                                     const std::vector<TokenRow>& rows, const ReferenceNeeds& needs,
                                     const ReferenceProgress& progress) {
  const Mesh& mesh = model.mesh();
  const std::string dtype = at::toString(model.dtype());
  const auto kinds = kinds_of(needs, dtype);
  if (mesh.is_root()) std::filesystem::create_directories(folder);
  mesh.world.barrier();
  std::vector<TokenRow> missing;
  {
    const State present(folder, dtype);
    missing = missing_rows(rows, kinds, [&](const auto& kind, uint64_t id) { return present.has(kind, id); });
  }
  const auto generation = reference_files(folder).size();
  mesh.world.barrier();  // nobody writes before all have looked
  if (!missing.empty()) {
    const auto passes = passes_of_rank(missing, mesh);
    const bool writes = mesh.tensor_rank() == 0 && !passes.empty();
    int64_t done = 0, total = 0;
    for (const auto& pass : passes) total += static_cast<int64_t>(pass.size());
    std::optional<Hdf5File> file;
    if (writes)
      file = Hdf5File::create(folder / ("references." + std::to_string(generation) + ".rank" +
                                        std::to_string(mesh.data_rank()) + ".h5"));
    for (size_t pass = 0; pass < passes.size(); ++pass) {
      const auto chunks = compute(model, passes[pass], needs);
      for (size_t i = 0; writes && i < kinds.size(); ++i) {
        const std::string group = kinds[i] + "/" + std::to_string(pass);
        file->write(group + "/rows", at::tensor(chunks[i].rows, at::kLong));
        file->write(group + "/offsets", at::tensor(chunks[i].offsets, at::kLong));
        file->write(group + "/values", chunks[i].values);
      }
      done += static_cast<int64_t>(passes[pass].size());
      if (progress) progress(done, total);
    }
    if (writes) file->close();
  }
  mesh.world.barrier();
  ReferenceCache cache;
  cache.state_ = std::make_shared<const State>(folder, dtype);
  return cache;
}

ReferenceCache ReferenceCache::build(const std::filesystem::path& folder, Transformer& model,
                                     const TrainingPool& pool, const Method& method,
                                     const ReferenceProgress& progress) {
  method.prepare(model);
  ReferenceCache cache;
  for (const auto& [role, needs] : method.needs()) {
    std::vector<TokenRow> rows;
    if (const auto groups = pool.groups.find(role); groups != pool.groups.end())
      for (const auto& wordings : groups->second)
        for (const TrainingRow& row : wordings) {
          rows.push_back(row.tokens);
          if (row.rejected) rows.push_back(*row.rejected);
        }
    cache = build(folder, model, rows, needs, progress);
  }
  return cache;
}

double ReferenceCache::log_probability(uint64_t row_id) const {
  return state_->read(log_probability_kind(state_->dtype), row_id).item<double>();
}

at::Tensor ReferenceCache::label_hidden(uint64_t row_id) const {
  return state_->read(label_hidden_kind(state_->dtype), row_id);
}

at::Tensor ReferenceCache::below_window(uint64_t row_id, int layer) const {
  return state_->read(below_kind(state_->dtype, layer), row_id);
}

at::Tensor ReferenceCache::representation(uint64_t row_id, int window_end) const {
  return state_->read(representation_kind(state_->dtype, window_end), row_id);
}

}  // namespace efface
