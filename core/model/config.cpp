#include "core/model/config.hpp"

#include <fstream>
#include <numeric>
#include <string>

#include "distributed/error.hpp"

namespace efface {
namespace {

using Json = nlohmann::json;

/// config.json with its path, so that every message can name file and key.
class ConfigFile {
 public:
  explicit ConfigFile(const std::filesystem::path& folder) : path_((folder / "config.json").string()) {
    std::ifstream stream(path_);
    if (!stream)
      throw Error(ErrorClass::model, path_ + ": cannot be read", "give the folder of a Hugging Face model");
    json_ = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
    if (!json_.is_object()) throw Error(ErrorClass::model, path_ + ": not a JSON object");
  }

  const Json& json() const { return json_; }
  bool has(const std::string& key) const { return json_.contains(key) && !json_[key].is_null(); }

  [[noreturn]] void fail(const std::string& key, const std::string& why,
                         const std::string& remedy = "") const {
    throw Error(ErrorClass::model, path_ + ": " + key + " " + why, remedy);
  }

  int64_t size(const std::string& key) const {
    if (!has(key)) fail(key, "is missing");
    const Json& value = json_[key];
    if (!value.is_number_integer() || value.get<double>() < 1 || value.get<double>() > 1e9)
      fail(key, "is " + value.dump() + ", not a positive integer");
    return value.get<int64_t>();
  }
  int64_t size(const std::string& key, int64_t missing) const { return has(key) ? size(key) : missing; }

  double positive(const std::string& key, double missing) const {
    return has(key) ? positive(key, json_[key]) : missing;
  }
  double positive(const std::string& key, const Json& value) const {
    if (!value.is_number() || !(value.get<double>() > 0))
      fail(key, "is " + value.dump() + ", not a positive number");
    return value.get<double>();
  }

  bool flag(const std::string& key, bool missing) const {
    if (!has(key)) return missing;
    if (!json_[key].is_boolean()) fail(key, "is " + json_[key].dump() + ", not true or false");
    return json_[key].get<bool>();
  }

  std::string text(const std::string& key, const std::string& missing) const {
    if (!has(key)) return missing;
    if (!json_[key].is_string()) fail(key, "is " + json_[key].dump() + ", not a string");
    return json_[key].get<std::string>();
  }

 private:
  std::string path_;
  Json json_;
};

/// transformers 5 writes rope_parameters; before, rope_theta and rope_scaling stood beside each other.
double read_rope_theta(const ConfigFile& file) {
  double theta = file.positive("rope_theta", 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!file.has(key)) continue;
    const Json& rope = file.json()[key];
    if (!rope.is_object()) file.fail(key, "is " + rope.dump() + ", not an object");
    const Json kind = rope.contains("rope_type") ? rope["rope_type"] : rope.value("type", Json("default"));
    if (kind != "default")
      file.fail(key, "asks for " + kind.dump() + ", which is not supported", "use a model with plain RoPE");
    if (rope.contains("rope_theta"))
      theta = file.positive(std::string(key) + ".rope_theta", rope["rope_theta"]);
  }
  return theta;
}

void refuse_unknown_switches(const ConfigFile& file) {
  for (const char* key : {"attention_bias", "mlp_bias", "qkv_bias", "use_qk_norm"})
    if (file.flag(key, false)) file.fail(key, "is true, which is not supported");
  if (file.text("hidden_act", "silu") != "silu")
    file.fail("hidden_act", "is " + file.text("hidden_act", "") + ", not silu");
  if (file.positive("partial_rotary_factor", 1.0) != 1.0)
    file.fail("partial_rotary_factor", "other than 1 is not supported");
  if (file.size("pretraining_tp", 1) != 1) file.fail("pretraining_tp", "other than 1 is not supported");
  if (file.has("sliding_window") && file.flag("use_sliding_window", true))
    file.fail("sliding_window", "is not supported");
  if (file.has("quantization_config"))
    file.fail("quantization_config", "is not supported", "convert the model to float32 or bfloat16 first");
}

std::vector<int64_t> read_eos(const ConfigFile& file) {
  if (!file.has("eos_token_id")) return {};
  const Json& value = file.json()["eos_token_id"];
  std::vector<int64_t> ids;
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_integer())
      file.fail("eos_token_id", "is " + value.dump() + ", not an id or a list of ids");
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const ConfigFile file(folder);
  ModelConfig config;
  config.model_type = file.text("model_type", "");
  if (config.model_type != "llama" && config.model_type != "mistral")
    file.fail("model_type", "is \"" + config.model_type + "\", not one that is known",
              "use a llama or mistral model");
  refuse_unknown_switches(file);

  config.hidden_size = file.size("hidden_size");
  config.intermediate_size = file.size("intermediate_size");
  config.layers = file.size("num_hidden_layers");
  config.heads = file.size("num_attention_heads");
  config.kv_heads = file.size("num_key_value_heads", config.heads);
  if (!file.has("head_dim") && config.hidden_size % config.heads != 0)
    file.fail("num_attention_heads", "does not divide hidden_size");
  config.head_dim = file.size("head_dim", config.hidden_size / config.heads);
  config.vocab_size = file.size("vocab_size");
  config.max_positions = file.size("max_position_embeddings", 2048);
  if (config.heads % config.kv_heads != 0)
    file.fail("num_key_value_heads", "does not divide num_attention_heads");
  if (config.head_dim % 2 != 0) file.fail("head_dim", "is odd");

  config.rms_norm_eps = file.positive("rms_norm_eps", 1e-6);
  config.rope_theta = read_rope_theta(file);
  config.tie_word_embeddings = file.flag("tie_word_embeddings", false);
  config.eos_token_ids = read_eos(file);
  config.dtype = file.text("torch_dtype", file.text("dtype", "float32"));
  config.raw = file.json();
  return config;
}

void check_tensor_parallel(const ModelConfig& config, int tensor_size) {
  const int64_t common = std::gcd(std::gcd(config.heads, config.kv_heads), config.intermediate_size);
  if (tensor_size >= 1 && common % tensor_size == 0) return;
  std::string sizes;
  for (int64_t size = 1; size <= common; ++size)
    if (common % size == 0) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  throw Error(ErrorClass::usage,
              "tensor parallel size " + std::to_string(tensor_size) + " does not divide the model's " +
                  std::to_string(config.heads) + " heads, " + std::to_string(config.kv_heads) +
                  " key-value heads and intermediate size " + std::to_string(config.intermediate_size),
              "use one of " + sizes);
}

void check_positions(const ModelConfig& config, const std::string& what, int64_t tokens) {
  if (config.max_positions <= 0 || tokens <= config.max_positions) return;
  throw Error(ErrorClass::data,
              what + ": " + std::to_string(tokens) + " tokens, more than the model's " +
                  std::to_string(config.max_positions) + " positions (max_position_embeddings)",
              "shorten the text, its window or the answer asked for, or take a model with more positions");
}

}  // namespace efface
