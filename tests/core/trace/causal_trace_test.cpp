#include "core/trace/causal_trace.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/trace/traced_fact.hpp"
#include "distributed/error.hpp"
#include "distributed/philox.hpp"
#include "tests/core/model/small_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

// One token a printable ASCII character, in the byte-level alphabet (a space is U+0120).
Tokenizer character_tokenizer() {
  nlohmann::json vocab;
  for (int c = 32; c < 127; ++c) vocab[c == 32 ? "\u0120" : std::string(1, static_cast<char>(c))] = c - 32;
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"truncation", nullptr},
                                    {"padding", nullptr},
                                    {"added_tokens", nlohmann::json::array()},
                                    {"normalizer", nullptr},
                                    {"pre_tokenizer", byte_level},
                                    {"post_processor", nullptr},
                                    {"decoder", byte_level},
                                    {"model",
                                     {{"type", "BPE"},
                                      {"dropout", nullptr},
                                      {"unk_token", nullptr},
                                      {"fuse_unk", false},
                                      {"byte_fallback", false},
                                      {"ignore_merges", false},
                                      {"vocab", vocab},
                                      {"merges", nlohmann::json::array()}}}};
  const TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", tokenizer.dump());
  return Tokenizer::load(folder.path());
}

const std::vector<TraceFact> kFacts{{"The capital of France is", "France"},
                                    {"Bees make", "Bees"},
                                    {"In Rome, the river is called", "Rome"},
                                    {"A b c", "b"},
                                    {"Gold has the symbol", "Gold"}};

TraceOptions options() {
  return {.draws = 3, .restore_window = 3, .unlearning_window = 1, .exclude = {0}, .seed = 5};
}

// p of `answer` at the end of one prompt in one run over all layers, the way the paper writes it.
double probability(const Transformer& model, const RaggedBatch& batch, int64_t answer, const Taps& taps) {
  const at::Tensor last = model.forward(batch, &taps).narrow(0, batch.tokens() - 1, 1);
  return model.token_log_probabilities(last, at::full({1}, answer, at::kLong)).exp().item<double>();
}

// Each fact, draw and layer by itself, with nothing shared between runs: [facts][layers] effects.
std::vector<std::vector<double>> trace_one_by_one(const Transformer& model, const Tokenizer& tokenizer) {
  const at::NoGradGuard no_grad;
  std::vector<TracedFact> facts;
  std::vector<at::Tensor> subjects;
  for (const TraceFact& fact : kFacts) {
    facts.push_back(tokenize_fact(tokenizer, fact, "", 0));
    const RaggedBatch batch = make_batch({{facts.back().ids, facts.back().length()}});
    subjects.push_back(
        model.embed(batch)
            .narrow(0, facts.back().subject_begin, facts.back().subject_end - facts.back().subject_begin)
            .flatten());
  }
  const double deviation = at::cat(subjects).to(at::kDouble).std(false).item<double>();

  const int layers = static_cast<int>(model.config().layers);
  std::vector<std::vector<double>> effects;
  for (const TracedFact& fact : facts) {
    const RaggedBatch batch = make_batch({{fact.ids, fact.length()}});
    std::vector<at::Tensor> clean_outputs;
    Taps clean;
    clean.replace_mlp_output = [&](int, const at::Tensor& output) {
      clean_outputs.push_back(output.clone());
      return output;
    };
    const at::Tensor last = model.forward(batch, &clean).narrow(0, batch.tokens() - 1, 1);
    const int64_t answer = model.logits(last).argmax().item<int64_t>();

    const int64_t subject = fact.subject_end - fact.subject_begin, draws = options().draws;
    const at::Tensor noise = philox_normal({options().seed, "trace_noise", fact.name}, draws * subject,
                                           model.config().hidden_size);
    std::vector<double> effect(static_cast<size_t>(layers));
    for (int64_t draw = 0; draw < draws; ++draw) {
      Taps corrupt;
      corrupt.replace_embedding = [&](const at::Tensor& embedding) {
        at::Tensor changed = embedding.clone();
        changed.narrow(0, fact.subject_begin, subject) +=
            3 * deviation * noise.narrow(0, draw * subject, subject);
        return changed;
      };
      const double corrupted = probability(model, batch, answer, corrupt);
      for (int layer = 0; layer < layers; ++layer) {
        Taps patch = corrupt;
        patch.replace_mlp_output = [&](int at, const at::Tensor& output) {
          if (std::abs(at - layer) > 1) return output;
          at::Tensor changed = output.clone();
          changed[fact.last_subject()].copy_(clean_outputs[static_cast<size_t>(at)][fact.last_subject()]);
          return changed;
        };
        effect[static_cast<size_t>(layer)] +=
            (probability(model, batch, answer, patch) - corrupted) / static_cast<double>(draws);
      }
    }
    effects.push_back(effect);
  }
  return effects;
}

class TraceOnAMesh : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Tensor, TraceOnAMesh, ::testing::Values(1, 2));

TEST_P(TraceOnAMesh, EqualsEveryRunByItself) {
  if (world().size() % GetParam() != 0 || world().size() / GetParam() > 2) GTEST_SKIP();
  const ModelConfig config = small_config(1);
  const Tokenizer tokenizer = character_tokenizer();
  const Transformer model =
      Transformer::random(config, make_mesh(world(), GetParam(), world().size() / GetParam()), 9);
  int64_t last = 0;
  const TraceResult result =
      causal_trace(model, tokenizer, kFacts, {}, options(), [&](int64_t done, int64_t total) {
        EXPECT_GT(done, last);
        EXPECT_LE(done, total);
        last = done;
      });
  const auto expected = trace_one_by_one(Transformer::random(config, single_mesh(), 9), tokenizer);
  ASSERT_EQ(result.effect.size(), static_cast<size_t>(config.layers));
  EXPECT_EQ(result.facts_used, 5);
  EXPECT_EQ(result.facts_unknown, 0);
  EXPECT_GT(result.clean_probability, result.corrupted_probability);
  for (size_t layer = 0; layer < result.effect.size(); ++layer) {
    double mean = 0, squares = 0;
    for (const auto& effect : expected) mean += effect[layer] / 5;
    for (const auto& effect : expected) squares += std::pow(effect[layer] - mean, 2);
    EXPECT_NEAR(result.effect[layer], mean, 1e-6) << "layer " << layer;
    EXPECT_NEAR(result.effect_standard_error[layer], std::sqrt(squares / 4 / 5), 1e-6);
    EXPECT_GT(std::abs(mean), 1e-5) << "the check would not see anything";
  }
  EXPECT_EQ(result.restore_window, 3);
  EXPECT_GE(result.window_begin, 1);  // layer 0 is excluded
  EXPECT_EQ(std::pair(result.unrestricted_begin, result.unrestricted_end), best_window(result.effect, 1, {}));
}

TEST(CausalTrace, LeavesOutAndCountsFactsTheModelDoesNotKnow) {
  const Tokenizer tokenizer = character_tokenizer();
  const Transformer model = Transformer::random(small_config(1), make_mesh(world(), 1, world().size()), 9);
  std::vector<TraceFact> facts = kFacts;
  std::vector<std::string> answers;
  for (TraceFact& fact : facts) {
    fact.prompt += " ";  // the answer is taken as it is
    const TracedFact traced = tokenize_fact(tokenizer, fact, "", 0);
    const at::NoGradGuard no_grad;
    const RaggedBatch batch = make_batch({{traced.ids, traced.length()}});
    const at::Tensor last = model.forward(batch).narrow(0, batch.tokens() - 1, 1);
    answers.push_back(tokenizer.decode({model.argmax(last).item<int64_t>()}) + "...");
  }
  EXPECT_EQ(causal_trace(model, tokenizer, facts, answers, options()).facts_unknown, 0);
  for (size_t wrong : {1, 3}) answers[wrong] = answers[wrong][0] == 'x' ? "y" : "x";
  const TraceResult some = causal_trace(model, tokenizer, facts, answers, options());
  EXPECT_EQ(some.facts_used, 3);
  EXPECT_EQ(some.facts_unknown, 2);
  const TraceResult known = causal_trace(model, tokenizer, {facts[0], facts[2], facts[4]}, {}, options());
  for (size_t layer = 0; layer < known.effect.size(); ++layer) {
    EXPECT_NE(some.effect[layer], 0);
    EXPECT_NEAR(some.clean_probability, known.clean_probability, 1e-6);
  }
  EXPECT_THROW(causal_trace(model, tokenizer, {facts[0]}, {"~"}, options()), Error);
}

TEST(CausalTrace, RefusesASubjectThatIsNotInItsPrompt) {
  const Tokenizer tokenizer = character_tokenizer();
  EXPECT_THROW(tokenize_fact(tokenizer, {"The capital of France is", "Spain"}, "", 0), Error);
  EXPECT_THROW(tokenize_fact(tokenizer, {"The capital of France is", ""}, "", 0), Error);
}

TEST(CausalTrace, FindsTheSubjectsTokensAndTheAnswersFirst) {
  const Tokenizer tokenizer = character_tokenizer();
  const TracedFact fact = tokenize_fact(tokenizer, {"The capital of France is", "France"}, "Paris", 4);
  EXPECT_EQ(fact.subject_begin, 15);
  EXPECT_EQ(fact.subject_end, 21);
  EXPECT_EQ(fact.last_subject(), 20);
  EXPECT_EQ(fact.answer_id, tokenizer.encode(" ").front());
  EXPECT_EQ(tokenize_fact(tokenizer, {"It is ", "It"}, "Paris", 0).answer_id, tokenizer.encode("P").front());
  EXPECT_EQ(fact.index, 4);
}

TEST(RestoredLayers, AreCentredAndClipped) {
  EXPECT_EQ(default_restore_window(48), 11);
  EXPECT_EQ(default_restore_window(30), 7);
  EXPECT_EQ(default_restore_window(24), 5);
  EXPECT_EQ(default_restore_window(3), 1);
  EXPECT_EQ(restored_layers(10, 30, 7), (std::pair{7, 14}));
  EXPECT_EQ(restored_layers(0, 30, 7), (std::pair{0, 4}));
  EXPECT_EQ(restored_layers(29, 30, 7), (std::pair{26, 30}));
}

TEST(BestWindow, HasTheLargestSumAndNoExcludedLayer) {
  const std::vector<double> effect{9, 1, 2, 6, -5, 4, 4};
  EXPECT_EQ(best_window(effect, 2, {}), (std::pair{0, 2}));
  EXPECT_EQ(best_window(effect, 2, {0}), (std::pair{2, 4}));
  EXPECT_EQ(best_window(effect, 2, {0, 3}), (std::pair{5, 7}));
  EXPECT_THROW(best_window(effect, 2, {1, 3, 5}), Error);
  EXPECT_THROW(best_window(effect, 8, {}), Error);
}

}  // namespace
}  // namespace efface::testing
