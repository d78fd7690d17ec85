// efface inspect FOLDER: what a model or a run is.
#include <iostream>

#include "core/model/config.hpp"
#include "core/storage/run_directory.hpp"
#include "core/storage/run_files.hpp"
#include "core/storage/safetensors.hpp"
#include "distributed/error.hpp"
#include "launch/commands/command.hpp"
#include "recipes/pipeline.hpp"
#include "recipes/progress.hpp"

namespace efface {
namespace {

void inspect_model(const std::filesystem::path& folder) {
  const ModelConfig config = read_model_config(folder);
  const auto reader = SafetensorsReader::open_folder(folder);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  std::map<std::string, int64_t> by_dtype;
  int64_t parameters = 0, bytes = 0;
  for (const auto& name : reader.names()) {
    int64_t count = 1;
    for (const int64_t size : reader.shape(name)) count *= size;
    parameters += count;
    bytes += count * static_cast<int64_t>(at::elementSize(reader.dtype(name)));
    ++by_dtype[at::toString(reader.dtype(name))];
  }
  std::cout << "model       " << config.model_type << ", " << config.layers << " layers, width "
            << config.hidden_size << ", feed-forward " << config.intermediate_size << ", " << config.heads
            << " heads (" << config.kv_heads << " key-value) of " << config.head_dim << "\n"
            << "parameters  " << count_text(parameters) << " in " << reader.names().size() << " tensors, "
            << number_text(static_cast<double>(bytes) / (1 << 20)) << " MiB\n";
  for (const auto& [dtype, count] : by_dtype)
    std::cout << "dtype       " << dtype << ": " << count << " tensors\n";
  std::cout << "vocabulary  " << count_text(tokenizer.vocab_size()) << " tokens, ends at";
  for (const int64_t id : config.eos_token_ids)
    std::cout << " " << id << " '" << tokenizer.token_of(id) << "'";
  std::cout << "\n";
  std::string sizes;
  for (int tensor = 1; tensor <= 64; ++tensor) {
    try {
      check_tensor_parallel(config, tensor);
      sizes.append(1, ' ').append(std::to_string(tensor));
    } catch (const Error&) {
    }
  }
  std::cout << "tensor      ranks that divide it:" << sizes << "\n";
  try {
    std::cout << "template    " << ChatTemplate::detect(folder).name() << "\n";
  } catch (const Error& error) {
    std::cout << "template    " << error.what() << "\n";
  }
}

nlohmann::json stage_record(const std::filesystem::path& folder, const std::string& stage) {
  const auto file = folder / stage / "done.json";
  if (!std::filesystem::exists(file)) return {};
  auto record = nlohmann::json::parse(read_text_file(file), nullptr, /*allow_exceptions=*/false);
  return record.is_object() && record.contains("summary") ? record
                                                          : nlohmann::json(file.string() + " is damaged");
}

void inspect_run(const std::filesystem::path& folder) {
  const auto manifest = nlohmann::json::parse(read_text_file(folder / "run.json"), nullptr, false);
  if (!manifest.is_object())
    throw Error(ErrorClass::storage, (folder / "run.json").string() + " is damaged",
                "the same `efface run` command writes it again");
  std::cout << "run         " << manifest["method"].get<std::string>() << " on "
            << manifest["model"].get<std::string>() << ", " << manifest["ranks"] << " ranks (tensor "
            << manifest["tensor"] << " x data " << manifest["data"] << "), started "
            << manifest["started"].get<std::string>() << "\n"
            << "command     " << manifest["command"].get<std::string>() << "\n";
  nlohmann::json before, after;
  // Other folders are of an earlier run there, of other settings.
  for (const auto& stage : manifest.value("stages", stage_names())) {
    const nlohmann::json record = stage_record(folder, stage);
    std::cout << std::left << std::setw(12) << stage;
    if (record.is_null()) {
      std::cout << (std::filesystem::exists(folder / stage / "started.json") ? "begun" : "-") << "\n";
      continue;
    }
    if (record.is_string()) {
      std::cout << "stale: " << record.get<std::string>() << "\n";
      continue;
    }
    for (const auto& [file, what] :
         damaged_files(folder / stage, record.value("files", nlohmann::json::object()), Communicator()))
      std::cout << "stale: " << file << " " << what << "; ";
    const nlohmann::json& summary = record.at("summary");
    std::cout << "done in " << duration_text(summary.value("seconds", 0.0)) << "\n";
    if (stage == "before") before = summary;
    if (stage == "evaluate") after = summary;
  }
  if (!after.is_null()) std::cout << "\n" << before_after_table(before, after);
}

}  // namespace

void add_inspect(CommandLine line) {
  auto folder = std::make_shared<std::filesystem::path>();
  CLI::App* command = line.app.add_subcommand("inspect", "What a model folder or a run folder holds");
  command->add_option("FOLDER", *folder, "a model folder (config.json) or a run folder (run.json)")
      ->required();
  command->footer("Examples:\n  efface inspect models/smollm2\n  efface inspect runs/quickstart-nsru");
  command->callback([=] {
    line.action = [=] {
      if (!line.is_root()) return;
      if (std::filesystem::exists(*folder / "run.json"))
        inspect_run(*folder);
      else if (std::filesystem::exists(*folder / "config.json"))
        inspect_model(*folder);
      else
        throw Error(ErrorClass::usage,
                    folder->string() + ": neither a model (config.json) nor a run (run.json)");
    };
  });
}

}  // namespace efface
