// covariance: the second moments of every wanted linear input over the retain tokens, in one pass.
#include "core/subspace/covariance.hpp"

#include <algorithm>
#include <iterator>
#include <map>

#include "core/subspace/streamed_covariance.hpp"
#include "core/subspace/subspace_store.hpp"
#include "distributed/error.hpp"
#include "distributed/memory.hpp"
#include "recipes/stages/workspace.hpp"
#include "recipes/stop_signal.hpp"

namespace efface {
namespace {

nlohmann::json settings(const Workspace& work) {
  const NullspaceSection& nullspace = work.recipe.nullspace;
  nlohmann::json inputs;
  for (const auto& input : inputs_of(work.trained_modules())) inputs.push_back(input_name(input));
  nlohmann::json key = {{"model", work.model_key()},
                        {"inputs", inputs},
                        {"text", file_key(work.recipe.data.text_covariance)},
                        {"heldout", file_key(work.recipe.data.text_heldout)},
                        {"max_tokens", nullspace.max_tokens},
                        {"max_heldout_tokens", nullspace.max_heldout_tokens},
                        {"window", nullspace.window},
                        {"skip_sinks", nullspace.skip_sinks},
                        {"norm_cap", nullspace.norm_cap}};
  if (nullspace.norm_cap > 0) key["capped"] = nullspace.capped;
  if (nullspace.chat_rows)
    key["chat_rows"] = {source_key(work.recipe.data.retain), source_key(work.recipe.data.neighbours),
                        source_key(work.recipe.data.same_relation)};
  return key;
}

bool wanted(const Workspace& work) { return work.has_subspace(); }

/// Rows whose tokens count, chat rows first, `limit` tokens in all.
std::vector<TokenRow> retain_rows(const Workspace& work) {
  const RowMaker maker = work.rows();
  const NullspaceSection& nullspace = work.recipe.nullspace;
  std::vector<TokenRow> rows;
  if (nullspace.chat_rows)
    for (const auto* source : {&work.data.retain, &work.data.neighbours, &work.data.same_relation})
      for (const auto& record : *source) {
        if (is_question(record)) {
          const bool answered = !record.answer.empty() || !record.messages.empty();
          rows.push_back(answered ? maker.answer(record) : maker.prompt(record));
        } else {
          for (auto& row : maker.windows({record.text}, nullspace.window)) rows.push_back(std::move(row));
        }
      }
  for (auto& row : maker.windows(work.data.text_covariance, nullspace.window)) rows.push_back(std::move(row));
  return rows;
}

std::vector<TokenRow> up_to(std::vector<TokenRow> rows, int64_t tokens) {
  std::vector<TokenRow> kept;
  for (auto& row : rows) {
    if (tokens < 2) break;
    if (static_cast<int64_t>(row.ids.size()) > tokens) row.ids.resize(static_cast<size_t>(tokens));
    tokens -= static_cast<int64_t>(row.ids.size());
    row.prompt_length = static_cast<int64_t>(row.ids.size());
    kept.push_back(std::move(row));
  }
  return kept;
}

Input capped_input(const std::string& name) {
  for (const Input input : kInputs)
    if (input_name({0, input}) == "0." + name) return input;
  throw Error(ErrorClass::recipe, "nullspace.capped: no input is called '" + name + "'");
}

constexpr int64_t kPassTokens = 4096;  // of a data rank, about

/// This data rank's rows of every pass; inside a pass rows are dealt round-robin.
void add_passes(const Mesh& mesh, const std::vector<TokenRow>& rows, bool heldout,
                std::vector<RetainPass>& passes) {
  for (const auto& all : split_rows(rows, kPassTokens * mesh.data_size())) {
    RetainPass& pass = passes.emplace_back();
    pass.heldout = heldout;
    for (auto i = static_cast<size_t>(mesh.data_rank()); i < all.size(); i += mesh.data_size())
      pass.rows.push_back(all[i]);
  }
}

/// Most tokens of one data rank in one pass.
int64_t largest_pass(const Mesh& mesh, const std::vector<RetainPass>& passes) {
  int64_t largest = 0;
  for (const auto& pass : passes) largest = std::max(largest, token_count(pass.rows));
  return mesh.world.all_reduce(largest, Reduction::max);
}

nlohmann::json describe(const Covariance& covariance) {
  return {{"input", input_name(covariance.id)},
          {"n", covariance.matrix.n},
          {"tokens", covariance.tokens},
          {"heldout_tokens", covariance.heldout_tokens},
          {"trace", trace(covariance.matrix)},
          {"norm_cap", covariance.norm_cap},
          {"top_token_share", covariance.top_token_share}};
}

CovarianceOptions accumulator_options(const NullspaceSection& nullspace) {
  CovarianceOptions options;
  options.skip_sinks = nullspace.skip_sinks;
  options.norm_cap = nullspace.norm_cap;
  options.capped.clear();
  for (const auto& name : nullspace.capped) options.capped.push_back(capped_input(name));
  return options;
}

/// Bytes a rank may take. Collective.
int64_t memory_budget(const Workspace& work) {
  constexpr double kShareOfFree = 0.8;
  const double asked = work.recipe.nullspace.memory * (int64_t{1} << 30);
  return static_cast<int64_t>(
      asked > 0 ? asked : kShareOfFree * static_cast<double>(available_memory(work.mesh.world)));
}

/// Saves every `nullspace.save_every` minutes, and before the run ends when it is asked to.
class SaveTimer {
 public:
  explicit SaveTimer(const Workspace& work)
      : work_(work), interval_(60 * work.recipe.nullspace.save_every), last_(work.progress.seconds()) {}
  bool due() {
    stop_ = stop_was_asked(work_.mesh.world);
    const bool elapsed = interval_ > 0 && work_.progress.seconds() - last_ >= interval_;
    return work_.mesh.world.broadcast(stop_ || elapsed ? "due" : "", 0) == "due";
  }
  void saved() {
    last_ = work_.progress.seconds();
    if (stop_)
      throw Error(ErrorClass::interrupted, "stopped inside stage covariance",
                  "the same command goes on from there");
  }

 private:
  const Workspace& work_;
  double interval_, last_;
  bool stop_ = false;
};

std::vector<InputId> without(const std::vector<InputId>& all, const std::vector<InputId>& some) {
  std::vector<InputId> rest;
  std::set_difference(all.begin(), all.end(), some.begin(), some.end(), std::back_inserter(rest));
  return rest;
}

nlohmann::json run(Workspace& work) {
  const auto rows = up_to(retain_rows(work), work.recipe.nullspace.max_tokens);
  if (rows.empty())
    throw Error(ErrorClass::data, "nothing to retain: no covariance text and no retain records");
  const auto heldout = up_to(work.rows().windows(work.data.text_heldout, work.recipe.nullspace.window),
                             work.recipe.nullspace.max_heldout_tokens);
  const CovarianceOptions options = accumulator_options(work.recipe.nullspace);
  std::vector<RetainPass> passes;
  add_passes(work.mesh, evenly_dealt(rows, options.cap_sample), false, passes);
  add_passes(work.mesh, evenly_dealt(heldout, 0), true, passes);

  const auto folder = work.run.stage_folder("covariance");
  const auto inputs = inputs_of(work.trained_modules());
  CovarianceWriter writer(folder, work.mesh, settings(work));
  for (const auto& note : writer.notes()) work.progress.note("computed again: " + note);
  const auto there = writer.published();
  std::map<InputId, nlohmann::json> described;
  StreamHooks hooks;
  hooks.take = [&](Covariance& covariance) {
    writer.write(covariance);
    described[covariance.id] = describe(covariance);
  };
  hooks.group_done = [&] { writer.publish(); };
  hooks.note = [&](const std::string& note) { work.progress.note("not taken up: " + note); };
  SaveTimer timer(work);
  hooks.save_due = [&] { return timer.due(); };
  hooks.saved = [&] { timer.saved(); };

  const Transformer& model = work.model();
  const CovarianceMemory memory =
      covariance_memory(work.config(), work.mesh, inputs, options, !heldout.empty(),
                        largest_pass(work.mesh, passes), model.dtype());
  const int64_t budget = memory_budget(work);
  const auto groups = groups_within(memory, without(inputs, there), budget);
  const int64_t total = stream_work(groups, passes);
  hooks.progress = [&](int64_t done) {
    const auto in_tokens = [&](int64_t layers) {  // of all data ranks
      return layers * work.mesh.data_size() / (groups.back().back().layer + 1);
    };
    work.progress.update(in_tokens(done), in_tokens(total));
  };
  const double start = work.progress.seconds();
  stream_covariances(model, groups, passes, options, folder / "partial", hooks);
  const double seconds = work.progress.seconds() - start;
  writer.finish();

  if (!there.empty()) {
    const auto store = CovarianceStore::open(folder);
    for (const InputId& id : there) described[id] = describe(store.read(id, work.mesh));
  }
  nlohmann::json all = nlohmann::json::array();
  for (const auto& [id, description] : described) all.push_back(description);
  return {{"inputs", all},
          {"tokens", all.back()["tokens"]},
          {"heldout_tokens", all.back()["heldout_tokens"]},
          {"groups", groups.size()},
          {"bytes_with_all_layers", memory.all()},
          {"bytes_budget", budget},
          {"tokens_per_second",
           static_cast<double>(token_count(rows) + token_count(heldout)) / std::max(1e-9, seconds)}};
}

std::string line(const nlohmann::json& summary) {
  const auto groups = summary.value("groups", 1);
  return std::to_string(summary["inputs"].size()) + " inputs over " + count_text(summary["tokens"]) +
         " tokens, " + count_text(summary["heldout_tokens"]) + " held out, " +
         number_text(summary["tokens_per_second"]) + " tokens a second" +
         (groups > 1 ? ", in " + std::to_string(groups) + " groups of layers" : "");
}

}  // namespace

Stage covariance_stage() {
  Stage stage{"covariance", wanted, settings, run, line};
  stage.version = 3;  // in parts
  return stage;
}

}  // namespace efface
