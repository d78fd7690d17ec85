// efface score MODEL FILE.jsonl: log-probabilities of completions.
#include <iostream>
#include <nlohmann/json.hpp>

#include "distributed/error.hpp"
#include "launch/commands/command.hpp"

namespace efface {
namespace {

constexpr int64_t kTokensPerPass = 4096;

std::vector<TokenRow> read_rows(const std::string& file, const LoadedModel& loaded) {
  std::vector<TokenRow> rows;
  int64_t number = 0;
  for (const auto& line : read_lines(file)) {
    ++number;
    const std::string where = file + ":" + std::to_string(number);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object()) throw Error(ErrorClass::data, where + ": not a JSON object");
    for (const char* key : {"prompt", "completion"})
      if (!json.contains(key) || !json[key].is_string())
        throw Error(ErrorClass::data, where + ": '" + key + "' must be a text",
                    "each line is {\"prompt\": \"...\", \"completion\": \"...\"}");
    const std::string prompt = json["prompt"], completion = json["completion"];
    rows.push_back(loaded.chat.name() == "none"
                       ? plain_row(loaded.tokenizer, prompt, completion)
                       : chat_row(loaded.tokenizer, loaded.chat, prompt, "", completion, false));
    if (rows.back().labels() > 0 && rows.back().prompt_length < 1)
      throw Error(ErrorClass::data, where + ": the prompt has no tokens",
                  "the first token has no probability");
    check_positions(loaded.model.config(), where, static_cast<int64_t>(rows.back().ids.size()));
  }
  return rows;
}

/// One value a label of all rows, in order, on every rank. Rows are dealt over data ranks.
at::Tensor score_rows(const LoadedModel& loaded, const std::vector<TokenRow>& rows) {
  const at::NoGradGuard no_grad;
  const auto [begin, end] =
      even_range(static_cast<int64_t>(rows.size()), loaded.mesh.data_rank(), loaded.mesh.data_size());
  std::vector<at::Tensor> scores = {at::empty({0}, at::kDouble)};
  std::vector<TokenRow> part;
  int64_t tokens = 0;
  for (int64_t i = begin; i < end; ++i) {
    part.push_back(rows[static_cast<size_t>(i)]);
    tokens += static_cast<int64_t>(part.back().ids.size());
    const bool last = i + 1 == end;
    if (!last && tokens + static_cast<int64_t>(rows[static_cast<size_t>(i) + 1].ids.size()) <= kTokensPerPass)
      continue;
    const RaggedBatch batch = make_batch(part, loaded.mesh.device);
    scores.push_back(loaded.model.label_log_probabilities(batch).to(at::kCPU, at::kDouble));
    part.clear();
    tokens = 0;
  }
  return loaded.mesh.data.all_gather_rows(at::cat(scores));
}

void print_scores(const std::vector<TokenRow>& rows, const at::Tensor& scores) {
  const double* value = scores.const_data_ptr<double>();
  for (const auto& row : rows) {
    nlohmann::json line;
    line["tokens"] = std::vector<int64_t>(row.ids.begin() + row.prompt_length, row.ids.end());
    line["logprobs"] = std::vector<double>(value, value + row.labels());
    value += row.labels();
    std::cout << line.dump() << "\n";
  }
}

}  // namespace

void add_score(CommandLine line) {
  struct Options {
    ModelOptions model;
    std::string file;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = line.app.add_subcommand("score", "Log-probability of completions, token by token");
  add_model_options(*command, options->model);
  command
      ->add_option("FILE", options->file, "JSON lines with `prompt` and `completion`; - for standard input")
      ->required();
  command->footer(
      "Prints one JSON line each: {\"tokens\": [...], \"logprobs\": [...]}, natural logarithms, one a "
      "completion\n"
      "token. With a chat template the prompt is the user's message and the completion the assistant's; "
      "with\n"
      "--template none the ids of the two texts are joined as they are.\n\n"
      "Examples:\n"
      "  efface score models/smollm2 facts.jsonl --template none\n"
      "  mpirun -n 3 efface score models/smollm2 facts.jsonl --tensor 3");
  command->callback([=] {
    line.action = [=] {
      const LoadedModel loaded = load_model(options->model, line.world);
      // Standard input is the root's alone.
      std::string file = options->file;
      if (file == "-" && line.world.size() > 1)
        throw Error(ErrorClass::usage, "standard input cannot be read by several ranks", "give a file");
      const auto rows = read_rows(file, loaded);
      const at::Tensor scores = score_rows(loaded, rows);
      if (line.is_root()) print_scores(rows, scores);
    };
  });
}

}  // namespace efface
