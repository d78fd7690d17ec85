// The same numbers as transformers and PEFT on the real model (tests/reference/make_reference.py wrote them).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/model/transformer.hpp"
#include "core/storage/safetensors.hpp"
#include "tests/core/model/lora_grids.hpp"
#include "tests/support/world.hpp"

namespace efface {
namespace {

using testing::world;

struct Reference {
  SafetensorsReader values;
  Transformer model;
};

#define EFFACE_NEEDS_REFERENCE()                                                                        \
  const char* model_folder = std::getenv("EFFACE_SMOLLM2");                                             \
  const char* reference_file = std::getenv("EFFACE_REFERENCE");                                         \
  if (model_folder == nullptr || reference_file == nullptr || !std::filesystem::exists(reference_file)) \
  GTEST_SKIP() << "SmolLM2 or its reference values not present"

Mesh smollm2_mesh() {
  // 9 heads, 3 key-value heads: tensor is 1 or 3.
  return world().size() % 3 == 0 ? make_mesh(world(), 3, 0) : make_mesh(world(), 1, 0);
}

TokenRow row_of(const at::Tensor& ids) {
  TokenRow row;
  row.ids.assign(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel());
  row.prompt_length = 1;
  return row;
}

TEST(AgainstTransformers, LogitsOfEveryPositionAgreeToOneInTenThousandOfTheLargest) {
  EFFACE_NEEDS_REFERENCE();
  const auto values = SafetensorsReader::open_file(reference_file);
  const auto model = Transformer::load(model_folder, smollm2_mesh());
  at::NoGradGuard no_grad;
  for (int text = 0; text < 3; ++text) {
    const auto batch = make_batch({row_of(values.read("ids." + std::to_string(text)))});
    const auto expected = values.read("logits." + std::to_string(text));
    const auto actual = model.logits(model.forward(batch)).to(at::kFloat);
    const double largest = expected.abs().max().item<double>();
    EXPECT_LE((actual - expected).abs().max().item<double>(), 1e-4 * largest) << "text " << text;
  }
}

TEST(AgainstPeft, LoraLossAndGradientsOfOneStepAgree) {
  EFFACE_NEEDS_REFERENCE();
  const auto values = SafetensorsReader::open_file(reference_file);
  const Mesh mesh = smollm2_mesh();
  auto model = Transformer::load(model_folder, mesh);
  struct Factors {
    at::Tensor a, b;
  };
  std::map<ModuleId, Factors> factors;
  for (const auto& module : modules_of(0, static_cast<int>(model.config().layers),
                                       {std::begin(kProjections), std::end(kProjections)})) {
    const auto shape = model.weight(module).global_shape;
    auto a = testing::lora_a_grid(4, shape[1]), b = testing::lora_b_grid(shape[0], 4);
    if (is_row_parallel(module.projection)) {
      const auto [begin, end] = even_range(shape[1], mesh.tensor_rank(), mesh.tensor_size());
      a = a.slice(1, begin, end).contiguous();
    } else {
      const auto [begin, end] = even_range(shape[0], mesh.tensor_rank(), mesh.tensor_size());
      b = b.slice(0, begin, end).contiguous();
    }
    factors[module] = {a.requires_grad_(), b.requires_grad_()};
    model.set_adapter(module, {factors[module].a, factors[module].b, 2.0});
  }
  const auto batch = make_batch({row_of(values.read("ids.0"))});
  const auto loss = -model.label_log_probabilities(batch).mean();
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), values.read("lora.loss").item<double>(), 1e-4);
  for (const int layer : {0, 15}) {
    for (const auto projection : kProjections) {
      const ModuleId module{layer, projection};
      auto da = factors[module].a.grad().clone(), db = factors[module].b.grad().clone();
      if (is_row_parallel(projection)) {
        mesh.tensor.all_reduce(db);
        da = mesh.tensor.all_gather(da.t().contiguous()).t();
      } else {
        mesh.tensor.all_reduce(da);
        db = mesh.tensor.all_gather(db);
      }
      const auto name = "lora." + module_name(module);
      EXPECT_LE(testing::relative_error(da, values.read(name + ".lora_A")), 1e-3) << name << " A";
      EXPECT_LE(testing::relative_error(db, values.read(name + ".lora_B")), 1e-3) << name << " B";
    }
  }
}

}  // namespace
}  // namespace efface
