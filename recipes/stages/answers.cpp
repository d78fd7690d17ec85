// answers: what the frozen model itself says to the retain questions, the text of retain_kl rows.
#include "distributed/error.hpp"
#include "recipes/stages/own_answers.hpp"
#include "recipes/stages/workspace.hpp"

namespace efface {

OwnAnswers read_own_answers(const std::filesystem::path& folder) {
  OwnAnswers answers;
  const auto file = nlohmann::json::parse(read_text_file(folder / "answers.json"));
  for (const auto& entry : file)
    answers[std::stoull(entry.at("row").get<std::string>())] = {entry.at("ids").get<std::vector<int64_t>>(),
                                                                entry.at("finished").get<bool>()};
  return answers;
}

namespace {

nlohmann::json settings(const Workspace& work) {
  return {{"model", work.model_key()},
          {"answer_tokens", work.recipe.train.answer_tokens},
          {"records",
           {source_key(work.recipe.data.retain), source_key(work.recipe.data.neighbours),
            source_key(work.recipe.data.same_relation)}}};
}

bool wanted(const Workspace& work) { return needs_own_answers(work.recipe); }

nlohmann::json run(Workspace& work) {
  const RowMaker maker = work.rows();
  std::map<uint64_t, TokenRow> prompts;  // each once, in an order of no rank's own
  for (const Record* record : retain_records(work.recipe, work.data)) {
    if (!is_question(*record)) continue;
    TokenRow prompt = maker.prompt(*record);
    prompts.emplace(prompt.row_id(), std::move(prompt));
  }
  std::vector<std::pair<uint64_t, TokenRow>> all(prompts.begin(), prompts.end());
  const auto [begin, end] =
      even_range(static_cast<int64_t>(all.size()), work.mesh.data_rank(), work.mesh.data_size());
  const int64_t longest = work.recipe.train.answer_tokens;
  const at::NoGradGuard no_grad;
  const Transformer& model = work.model();
  nlohmann::json mine = nlohmann::json::array();
  constexpr int64_t together = 32;
  for (int64_t at = begin; at < end; at += together) {
    std::vector<std::vector<int64_t>> ids;
    for (int64_t i = at; i < std::min(end, at + together); ++i)
      ids.push_back(all[static_cast<size_t>(i)].second.ids);
    const auto said = model.generate(ids, longest);
    for (size_t i = 0; i < said.size(); ++i)
      mine.push_back({{"row", std::to_string(all[static_cast<size_t>(at) + i].first)},
                      {"ids", said[i]},
                      {"finished", static_cast<int64_t>(said[i].size()) < longest}});
    work.progress.update(std::min(end, at + together) - begin, end - begin);
  }
  nlohmann::json gathered = nlohmann::json::array();
  for (int rank = 0; rank < work.mesh.data_size(); ++rank)
    for (auto& entry : nlohmann::json::parse(
             work.mesh.data.broadcast(rank == work.mesh.data_rank() ? mine.dump() : std::string(), rank)))
      gathered.push_back(std::move(entry));
  if (work.mesh.is_root())
    write_text_file(work.run.stage_folder("answers") / "answers.json", gathered.dump() + "\n");
  int64_t tokens = 0;
  for (const auto& entry : gathered) tokens += static_cast<int64_t>(entry["ids"].size());
  return {{"answers", gathered.size()}, {"tokens", tokens}};
}

std::string line(const nlohmann::json& summary) {
  return count_text(summary["answers"]) + " answers of the frozen model, " + count_text(summary["tokens"]) +
         " tokens";
}

}  // namespace

Stage answers_stage() { return {"answers", wanted, settings, run, line}; }

}  // namespace efface
