#include "core/storage/safetensors.hpp"

#include <nlohmann/json.hpp>

#include "core/storage/safetensors_shards.hpp"
#include "distributed/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface {
namespace {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

/// A file made by hand, independent of the writer.
std::string file_with(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> 8 * i);
  return file + header + data;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.numel() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0);
}

std::vector<std::pair<std::string, at::Tensor>> tensors_of_every_dtype() {
  at::manual_seed(1);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble, at::kLong, at::kInt, at::kShort,
                     at::kChar, at::kByte, at::kBool})
    tensors.emplace_back(std::string("t.") + c10::toString(dtype), at::randn({3, 5}).mul(10).to(dtype));
  tensors.emplace_back("scalar", at::tensor(2.5f).squeeze());
  tensors.emplace_back("empty", at::empty({0, 4}, at::kFloat));
  tensors.emplace_back("a name with \"quotes\" and ü", at::ones({1}));
  return tensors;
}

TEST(Safetensors, EveryDtypeComesBackBitForBitInTheOrderWritten) {
  TemporaryFolder folder;
  const auto tensors = tensors_of_every_dtype();
  write_safetensors(folder / "a.safetensors", tensors, {{"format", "pt"}, {"made", "here"}});
  const auto reader = SafetensorsReader::open_file(folder / "a.safetensors");
  ASSERT_EQ(reader.names().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(reader.names()[i], tensors[i].first);
    EXPECT_TRUE(same_bits(reader.read(tensors[i].first), tensors[i].second)) << tensors[i].first;
    EXPECT_EQ(reader.shape(tensors[i].first), tensors[i].second.sizes().vec());
    EXPECT_EQ(reader.dtype(tensors[i].first), tensors[i].second.scalar_type());
  }
  EXPECT_EQ(reader.metadata().at("made"), "here");
  EXPECT_FALSE(reader.contains("t"));
}

TEST(Safetensors, LoadingAndSavingGivesTheSameFile) {
  TemporaryFolder folder;
  write_safetensors(folder / "a", tensors_of_every_dtype());
  const auto reader = SafetensorsReader::open_file(folder / "a");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& name : reader.names()) tensors.emplace_back(name, reader.read(name));
  write_safetensors(folder / "b", tensors, reader.metadata());
  EXPECT_EQ(read_bytes(folder / "a"), read_bytes(folder / "b"));
}

TEST(Safetensors, ReadsAFileMadeByHandAndTheHeaderOrderDoesNotMatter) {
  TemporaryFolder folder;
  const std::string header =
      R"({"second":{"dtype":"I32","shape":[2],"data_offsets":[2,10]},"first":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}   )";
  write_bytes(folder / "a", file_with(header, std::string("\x80\x3f\x01\x00\x00\x00\xff\xff\xff\xff", 10)));
  const auto reader = SafetensorsReader::open_file(folder / "a");
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"first", "second"}));
  EXPECT_EQ(reader.read("first").item<float>(), 1.0f);
  EXPECT_TRUE(at::equal(reader.read("second"), at::tensor({1, -1}, at::kInt)));
}

TEST(Safetensors, TheDataStartsAtAMultipleOfEight) {
  TemporaryFolder folder;
  for (const std::string name : {"a", "ab", "abc", "abcd"}) {
    write_safetensors(folder / name, {{name, at::ones({2})}});
    EXPECT_EQ(read_bytes(folder / name).size() % 8, 0u);
  }
}

TEST(Safetensors, SlicesEqualTheSameSliceOfTheWhole) {
  TemporaryFolder folder;
  at::manual_seed(2);
  const at::Tensor matrix = at::randn({7, 6}).to(at::kBFloat16), cube = at::randn({4, 5, 3}),
                   line = at::randn({9});
  write_safetensors(folder / "a", {{"matrix", matrix}, {"cube", cube}, {"line", line}});
  const auto reader = SafetensorsReader::open_file(folder / "a");
  const std::map<std::string, at::Tensor> whole{{"matrix", matrix}, {"cube", cube}, {"line", line}};
  for (const auto& [name, tensor] : whole)
    for (int dim = 0; dim < std::min<int>(2, tensor.dim()); ++dim)
      for (int64_t begin = 0; begin <= tensor.size(dim); ++begin)
        for (int64_t end = begin; end <= tensor.size(dim); ++end)
          EXPECT_TRUE(
              same_bits(reader.read_slice(name, dim, begin, end), tensor.slice(dim, begin, end).contiguous()))
              << name << " dim " << dim << " [" << begin << ", " << end << ")";
  EXPECT_THROW(reader.read_slice("matrix", 0, 0, 8), Error);
  EXPECT_THROW(reader.read_slice("matrix", 0, -1, 2), Error);
  EXPECT_THROW(reader.read_slice("matrix", 2, 0, 1), Error);
  EXPECT_THROW(reader.read_slice("line", 1, 0, 1), Error);
}

TEST(Safetensors, AFolderOfSeveralFilesIsReadThroughItsIndex) {
  TemporaryFolder folder;
  write_safetensors(folder / "model-1.safetensors", {{"a", at::ones({2})}});
  write_safetensors(folder / "model-2.safetensors", {{"b", at::zeros({3})}});
  write_bytes(folder / "model.safetensors.index.json",
              R"({"metadata":{"total_size":20,"more":[1,{"x":null}]},)"
              R"("weight_map":{"b":"model-2.safetensors","a":"model-1.safetensors"}})");
  const auto reader = SafetensorsReader::open_folder(folder.path());
  EXPECT_EQ(reader.read("a").sum().item<float>(), 2);
  EXPECT_EQ(reader.read("b").size(0), 3);
  EXPECT_EQ(reader.file_of("b"), folder / "model-2.safetensors");
}

TEST(Safetensors, AnIndexThatLiesIsRefused) {
  TemporaryFolder folder;
  write_safetensors(folder / "one.safetensors", {{"a", at::ones({2})}});
  write_safetensors(folder / "two.safetensors", {{"a", at::ones({2})}, {"b", at::ones({2})}});
  for (const std::string map :
       {R"({"a":"../one.safetensors"})", R"({"a":"/etc/passwd"})", R"({"a":"sub/../../one.safetensors"})",
        R"({"a":"missing.safetensors"})", R"({"a":3})", R"({"a":["one.safetensors"]})", R"({"a":{"b":"c"}})",
        R"({"z":"one.safetensors"})", R"({"a":"one.safetensors","b":"two.safetensors"})", R"({"a":""})",
        R"({"a":"one.safetensors\u0000x"})", R"({"a":"one.safetensors","a":"one.safetensors"})",
        R"("one")"}) {
    write_bytes(folder / "model.safetensors.index.json", R"({"weight_map":)" + map + "}");
    EXPECT_THROW(SafetensorsReader::open_folder(folder.path()), Error) << map;
  }
}

TEST(Safetensors, AWriterThatIsNotClosedLeavesTheOldFileAndNothingElse) {
  TemporaryFolder folder;
  write_safetensors(folder / "a", {{"x", at::ones({2})}});
  const std::string before = read_bytes(folder / "a");
  {
    SafetensorsWriter writer(folder / "a", {{"y", at::kFloat, {2}}, {"z", at::kFloat, {2}}});
    writer.append(at::zeros({2}));
    EXPECT_THROW(writer.close(), Error) << "one tensor is missing";
    EXPECT_THROW(writer.append(at::zeros({3})), Error) << "not the declared shape";
    EXPECT_THROW(writer.append(at::zeros({2}, at::kDouble)), Error) << "not the declared dtype";
  }
  EXPECT_EQ(read_bytes(folder / "a"), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Safetensors, AFolderWithoutWeightsIsNamed) {
  TemporaryFolder folder;
  try {
    SafetensorsReader::open_folder(folder.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::model);
    EXPECT_NE(std::string(error.what()).find(folder.path().string()), std::string::npos);
  }
}

/// E4M3 has no infinities (S.1111.111 is not a number), E5M2 is the upper byte of an fp16.
float fp8_value(int code, bool e4m3) {
  const int mantissa_bits = e4m3 ? 3 : 2, bias = e4m3 ? 7 : 15;
  const int exponent = (code & 0x7F) >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  const float sign = code & 0x80 ? -1.0f : 1.0f, step = std::ldexp(1.0f, -mantissa_bits);
  if (e4m3 ? (code & 0x7F) == 0x7F : exponent == 31 && mantissa != 0) return std::nanf("");
  if (!e4m3 && exponent == 31) return sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa * step, 1 - bias);
  return sign * std::ldexp(1 + mantissa * step, exponent - bias);
}

TEST(Safetensors, Fp8IsReadAndWidened) {
  for (const bool e4m3 : {true, false}) {
    TemporaryFolder folder;
    std::string codes;
    for (int code = 0; code < 256; ++code) codes.push_back(static_cast<char>(code));
    write_bytes(folder / "a", file_with(std::string(R"({"t":{"dtype":"F8_)") + (e4m3 ? "E4M3" : "E5M2") +
                                            R"(","shape":[16,16],"data_offsets":[0,256]}})",
                                        codes));
    const auto reader = SafetensorsReader::open_file(folder / "a");
    EXPECT_EQ(c10::elementSize(reader.dtype("t")), 1u);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor wide = at::empty({16, 16}, dtype), columns = at::empty({16, 3}, dtype);
      reader.read_into(wide, "t");
      reader.read_slice_into(columns, "t", 1, 5, 8);
      EXPECT_TRUE(at::equal(columns.nan_to_num(), wide.slice(1, 5, 8).nan_to_num()));
      for (int code = 0; code < 256; ++code) {
        const auto got = wide.view({256})[code].item<float>(), expected = fp8_value(code, e4m3);
        EXPECT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected))) << code << ": " << got;
      }
    }
  }
}

TEST(Safetensors, ReadingIntoMemoryThatIsThereEqualsReading) {
  TemporaryFolder folder;
  at::manual_seed(3);
  const at::Tensor large = at::randn({1500, 3000});  // several pieces of a parallel read
  const at::Tensor small = at::randn({6, 5}).to(at::kBFloat16);
  write_safetensors(folder / "a", {{"large", large}, {"small", small}});
  const auto reader = SafetensorsReader::open_file(folder / "a");
  const at::Tensor whole = at::empty({1500, 3000}), rows = at::empty({700, 3000});
  reader.read_into(whole, "large");
  EXPECT_TRUE(same_bits(whole, large));
  reader.read_slice_into(rows, "large", 0, 333, 1033);
  EXPECT_TRUE(same_bits(rows, large.slice(0, 333, 1033)));

  const at::Tensor fused = at::zeros({10, 5});  // a part of a larger one, widened
  reader.read_into(fused.narrow(0, 2, 6), "small");
  EXPECT_TRUE(at::equal(fused.narrow(0, 2, 6), small.to(at::kFloat)));
  EXPECT_EQ(fused.narrow(0, 8, 2).abs().sum().item<float>(), 0);
  const at::Tensor turned = at::empty({5, 6}, at::kBFloat16);  // strided memory
  reader.read_into(turned.t(), "small");
  EXPECT_TRUE(at::equal(turned.t(), small));
  EXPECT_THROW(reader.read_into(at::empty({5, 6}), "small"), Error);
  EXPECT_THROW(reader.read_slice_into(at::empty({2, 5}), "small", 0, 0, 3), Error);
}

TEST(Safetensors, AFileCutShortAfterItWasOpenedIsAnError) {
  TemporaryFolder folder;
  write_safetensors(folder / "a", {{"x", at::ones({1 << 20})}});
  const auto reader = SafetensorsReader::open_file(folder / "a");
  std::filesystem::resize_file(folder / "a", 5000);
  EXPECT_THROW(reader.read("x"), Error);
}

std::vector<SafetensorsWriter::Declaration> bytes_declared(const std::vector<int64_t>& sizes) {
  std::vector<SafetensorsWriter::Declaration> tensors;
  for (const int64_t size : sizes)
    tensors.push_back({std::string("t").append(std::to_string(tensors.size())), at::kByte, {size}});
  return tensors;
}

TEST(ShardedSafetensors, ShardsFillInOrderAndALargeTensorHasItsOwn) {
  using Plan = std::vector<std::vector<size_t>>;
  EXPECT_EQ(plan_shards(bytes_declared({6, 6, 2, 6, 2, 2}), 10), (Plan{{0}, {1, 2}, {3, 4, 5}}));
  EXPECT_EQ(plan_shards(bytes_declared({4, 11, 6, 1}), 10), (Plan{{1}, {0, 2}, {3}}));
  EXPECT_EQ(plan_shards(bytes_declared({1, 2}), 10), (Plan{{0, 1}}));
}

TEST(ShardedSafetensors, AFolderOfShardsReadsLikeOneFile) {
  for (const int64_t largest : {30, 1000}) {
    TemporaryFolder folder;
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    std::vector<SafetensorsWriter::Declaration> declared;
    for (const int64_t rows : {3, 20, 2, 4}) {
      tensors.emplace_back(std::string("t").append(std::to_string(rows)),
                           at::arange(rows * 2).to(at::kHalf).view({rows, 2}));
      declared.push_back({tensors.back().first, at::kHalf, {rows, 2}});
    }
    ShardedSafetensorsWriter writer(folder.path(), declared, largest);
    for (const auto& [name, tensor] : tensors) writer.append(tensor);
    EXPECT_THROW(writer.append(at::ones({1})), Error);
    writer.close();
    EXPECT_EQ(std::filesystem::exists(folder / "model.safetensors"), largest == 1000);
    const auto reader = SafetensorsReader::open_folder(folder.path());
    EXPECT_EQ(reader.names().size(), tensors.size());
    for (const auto& [name, tensor] : tensors) EXPECT_TRUE(same_bits(reader.read(name), tensor)) << name;
    if (largest == 1000) continue;
    EXPECT_EQ(reader.file_of("t20").filename(), "model-00001-of-00003.safetensors");
    const auto index = nlohmann::json::parse(read_bytes(folder / "model.safetensors.index.json"));
    EXPECT_EQ(index.at("metadata").at("total_size"), 29 * 2 * 2);
    EXPECT_EQ(index.at("metadata").at("total_parameters"), 29 * 2);
  }
}

TEST(ShardedSafetensors, AMissingTensorIsNamed) {
  TemporaryFolder folder;
  ShardedSafetensorsWriter writer(folder.path(), bytes_declared({6, 6}), 10);
  writer.append(at::zeros({6}, at::kByte));
  try {
    writer.close();
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model-00002-of-00002.safetensors: tensor \"t1\""),
              std::string::npos)
        << error.what();
  }
}

TEST(ShardedSafetensors, SizesAreReadAsTransformersReadsThem) {
  EXPECT_EQ(parse_shard_size("5GB"), kDefaultShardBytes);
  EXPECT_EQ(parse_shard_size("1.5MB"), 1'500'000);
  for (const char* bad : {"", "GB", "5", "5GiB", "-1GB", "0MB", "1e30TB", "5 GB", "nanGB"})
    EXPECT_THROW(parse_shard_size(bad), Error) << bad;
}

}  // namespace
}  // namespace efface
