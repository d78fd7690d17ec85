// covariance: the second moments of every wanted linear input over the retain tokens, in one pass.
#include "core/subspace/covariance.hpp"

#include "core/subspace/subspace_store.hpp"
#include "distributed/error.hpp"
#include "recipes/stages/workspace.hpp"

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

Input input_from_name(const std::string& name) {
  for (const Input input : kInputs)
    if (input_name({0, input}) == "0." + name) return input;
  throw Error(ErrorClass::recipe, "nullspace.capped: no input is called '" + name + "'");
}

/// Passes of about 4,096 tokens a data rank; inside a pass rows are dealt round-robin.
void accumulate(Workspace& work, CovarianceAccumulator& accumulator, const std::vector<TokenRow>& rows,
                bool heldout, int64_t& done, int64_t total) {
  const at::NoGradGuard no_grad;
  const Transformer& model = work.model();
  const auto data_size = static_cast<size_t>(work.mesh.data_size());
  for (const auto& pass : split_rows(rows, 4096 * work.mesh.data_size())) {
    std::vector<TokenRow> mine;
    for (size_t i = static_cast<size_t>(work.mesh.data_rank()); i < pass.size(); i += data_size)
      mine.push_back(pass[i]);
    const RaggedBatch batch = make_batch(mine, work.mesh.device);
    const Taps& taps = accumulator.taps(batch, heldout);
    model.run_layers(model.embed(batch, &taps), batch, 0, accumulator.last_layer() + 1, &taps);
    for (const auto& row : pass) done += static_cast<int64_t>(row.ids.size());
    work.progress.update(done, total);
  }
}

int64_t tokens_of(const std::vector<TokenRow>& rows) {
  int64_t tokens = 0;
  for (const auto& row : rows) tokens += static_cast<int64_t>(row.ids.size());
  return tokens;
}

nlohmann::json summary_of(const std::vector<Covariance>& covariances, double seconds, int64_t tokens) {
  nlohmann::json inputs = nlohmann::json::array();
  for (const auto& covariance : covariances)
    inputs.push_back({{"input", input_name(covariance.id)},
                      {"n", covariance.matrix.n},
                      {"tokens", covariance.tokens},
                      {"heldout_tokens", covariance.heldout_tokens},
                      {"trace", trace(covariance.matrix)},
                      {"norm_cap", covariance.norm_cap},
                      {"top_token_share", covariance.top_token_share}});
  return {{"inputs", inputs},
          {"tokens", covariances.front().tokens},
          {"heldout_tokens", covariances.front().heldout_tokens},
          {"tokens_per_second", static_cast<double>(tokens) / std::max(1e-9, seconds)}};
}

nlohmann::json run(Workspace& work) {
  const auto rows = up_to(retain_rows(work), work.recipe.nullspace.max_tokens);
  if (rows.empty())
    throw Error(ErrorClass::data, "nothing to retain: no covariance text and no retain records");
  const auto heldout = up_to(work.rows().windows(work.data.text_heldout, work.recipe.nullspace.window),
                             work.recipe.nullspace.max_heldout_tokens);
  CovarianceOptions options;
  options.skip_sinks = work.recipe.nullspace.skip_sinks;
  options.norm_cap = work.recipe.nullspace.norm_cap;
  options.capped.clear();
  for (const auto& name : work.recipe.nullspace.capped) options.capped.push_back(input_from_name(name));
  CovarianceAccumulator accumulator(work.config(), work.mesh, inputs_of(work.trained_modules()), options);
  const int64_t total = tokens_of(rows) + tokens_of(heldout);
  work.model();
  int64_t done = 0;
  const double start = work.progress.seconds();
  accumulate(work, accumulator, rows, false, done, total);
  accumulate(work, accumulator, heldout, true, done, total);
  const double seconds = work.progress.seconds() - start;
  auto covariances = accumulator.finish();
  CovarianceStore::write(work.run.stage_folder("covariance"), covariances, work.mesh, settings(work));
  return summary_of(covariances, seconds, total);
}

std::string line(const nlohmann::json& summary) {
  return std::to_string(summary["inputs"].size()) + " inputs over " + count_text(summary["tokens"]) +
         " tokens, " + count_text(summary["heldout_tokens"]) + " held out, " +
         number_text(summary["tokens_per_second"]) + " tokens a second";
}

}  // namespace

Stage covariance_stage() { return {"covariance", wanted, settings, run, line}; }

}  // namespace efface
