#include "core/storage/hdf5_file.hpp"

#include <set>

#include "core/storage/hdf5_handle.hpp"
#include "core/storage/run_directory.hpp"
#include "distributed/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace efface {
namespace {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

int64_t files_in(const TemporaryFolder& folder) {
  return std::distance(std::filesystem::directory_iterator(folder.path()), {});
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::storage);
    return error.what();
  }
  return "";
}

TEST(Hdf5File, EveryDtypeComesBackBitForBit) {
  TemporaryFolder folder;
  at::manual_seed(3);
  std::map<std::string, at::Tensor> tensors;
  for (auto dtype :
       {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong, at::kInt, at::kByte, at::kBool})
    tensors[std::string("group/") + c10::toString(dtype)] = at::randn({4, 3}).abs().mul(9).to(dtype);
  tensors["0.qkv/matrix"] = at::randn({5, 5}, at::kDouble).t();  // not contiguous
  tensors["0.qkv/deep/er/scalar"] = at::tensor(3.5).squeeze();
  tensors["empty"] = at::empty({0, 7});
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  for (const auto& [name, tensor] : tensors) file.write(name, tensor);
  file.close();
  const Hdf5File back = Hdf5File::open(folder / "a.h5");
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(back.contains(name));
    EXPECT_EQ(back.shape(name), tensor.sizes().vec());
    EXPECT_EQ(back.read(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(back.read(name), tensor)) << name;
  }
  EXPECT_EQ(back.list(), (std::vector<std::string>{"0.qkv", "empty", "group"}));
  EXPECT_EQ(back.list("0.qkv"), (std::vector<std::string>{"deep", "matrix"}));
  EXPECT_FALSE(back.contains("0.qkv/missing"));
  EXPECT_FALSE(back.contains("no/such/path"));
}

TEST(Hdf5File, BFloat16IsStoredAsItsBits) {
  TemporaryFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", at::tensor({1.0f, -2.0f}).to(at::kBFloat16));
  file.close();
  EXPECT_EQ(Hdf5File::open(folder / "a.h5").attribute_text("x", "dtype"), "bfloat16");
  EXPECT_NE(read_bytes(folder / "a.h5").find(std::string("\x80\x3f\x00\xc0", 4)), std::string::npos);
}

TEST(Hdf5File, TextsAndAttributesComeBack) {
  TemporaryFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  const std::string text = "{\"ünïcode\": [1, 2]}\n" + std::string(100'000, 'x');
  file.write("config", text);
  file.write("nothing", std::string());
  file.write("values", std::vector<double>{1.5, -2.5});
  file.write_attribute("/", "model", "SmolLM2");
  file.write_attribute("/", "empty", std::string());
  file.write_attribute("values", "tokens", int64_t{123456789012});
  file.write_attribute("values", "energy", 0.95);
  file.write_attribute("values", "energy", 0.99);
  file.close();
  const Hdf5File back = Hdf5File::open(folder / "a.h5");
  EXPECT_EQ(back.read_text("config"), text);
  EXPECT_EQ(back.read_text("nothing"), "");
  EXPECT_TRUE(at::equal(back.read("values"), at::tensor({1.5, -2.5}, at::kDouble)));
  EXPECT_EQ(back.attribute_text("/", "model"), "SmolLM2");
  EXPECT_EQ(back.attribute_text("/", "empty"), "");
  EXPECT_EQ(back.attribute_number("values", "tokens"), 123456789012.0);
  EXPECT_EQ(back.attribute_number("values", "energy"), 0.99) << "an attribute written again is replaced";
  EXPECT_TRUE(back.has_attribute("values", "tokens"));
  EXPECT_FALSE(back.has_attribute("values", "no"));
  EXPECT_FALSE(back.has_attribute("no/such", "no"));
}

TEST(Hdf5File, RowsAreReadWithoutTheRest) {
  TemporaryFolder folder;
  const at::Tensor whole = at::arange(60, at::kInt).view({10, 2, 3});
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", whole);
  file.write("scalar", at::tensor(1.0).squeeze());
  file.close();
  const Hdf5File back = Hdf5File::open(folder / "a.h5");
  EXPECT_TRUE(at::equal(back.read_rows("x", 3, 7), whole.slice(0, 3, 7)));
  EXPECT_EQ(back.read_rows("x", 4, 4).size(0), 0);
  EXPECT_THROW(back.read_rows("x", 3, 11), Error);
  EXPECT_THROW(back.read_rows("x", -1, 2), Error);
  EXPECT_THROW(back.read_rows("scalar", 0, 0), Error);
}

TEST(Hdf5File, WithoutCloseNothingIsLeft) {
  TemporaryFolder folder;
  {
    Hdf5File file = Hdf5File::create(folder / "a.h5");
    file.write("x", at::ones({100}));
    EXPECT_FALSE(std::filesystem::exists(folder / "a.h5"));
  }
  EXPECT_EQ(files_in(folder), 0);
}

TEST(Hdf5File, AnOlderFileStaysUntilTheNewOneIsWhole) {
  TemporaryFolder folder;
  Hdf5File first = Hdf5File::create(folder / "a.h5");
  first.write("x", at::ones({4}));
  first.close();
  {
    Hdf5File abandoned = Hdf5File::create(folder / "a.h5");
    abandoned.write("x", at::zeros({4}));
  }
  EXPECT_EQ(Hdf5File::open(folder / "a.h5").read("x").sum().item<float>(), 4);
  Hdf5File second = Hdf5File::create(folder / "a.h5");
  second.write("x", at::zeros({4}));
  second.close();
  EXPECT_EQ(Hdf5File::open(folder / "a.h5").read("x").sum().item<float>(), 0);
  EXPECT_EQ(files_in(folder), 1);
}

TEST(Hdf5File, TheSameContentGivesTheSameBytes) {
  TemporaryFolder folder;
  for (const std::string name : {"a.h5", "b.h5"}) {
    Hdf5File file = Hdf5File::create(folder / name);
    file.write("group/x", at::arange(10, at::kFloat));
    file.write_attribute("group", "layer", int64_t{3});
    file.close();
    ::usleep(name == "a.h5" ? 1'100'000 : 0);  // HDF5's own times have seconds
  }
  EXPECT_EQ(read_bytes(folder / "a.h5"), read_bytes(folder / "b.h5"));
}

TEST(Hdf5File, EveryDamagedByteOfADatasetIsFoundAndItsNameTold) {
  TemporaryFolder folder;
  const at::Tensor marked = at::full({16}, 1234.5, at::kDouble);
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("layer/good", at::ones({16}));
  file.write("layer/bad", marked);
  file.close();
  const std::string bytes = read_bytes(folder / "a.h5");
  const std::string wanted(static_cast<const char*>(marked.data_ptr()), marked.nbytes());
  const size_t position = bytes.find(wanted);
  ASSERT_NE(position, std::string::npos);
  for (size_t i = 0; i < wanted.size(); ++i) {
    std::string damaged = bytes;
    damaged[position + i] ^= 1 << (i % 8);
    write_bytes(folder / "a.h5", damaged);
    const Hdf5File back = Hdf5File::open(folder / "a.h5");
    EXPECT_NO_THROW(back.read("layer/good"));
    const std::string message = message_of([&] { back.read("layer/bad"); });
    EXPECT_NE(message.find("layer/bad"), std::string::npos) << "byte " << i;
    EXPECT_NE(message.find("a.h5"), std::string::npos);
  }
}

TEST(Hdf5File, RowsAreCheckedByTheBlocksTheyLieIn) {
  TemporaryFolder folder;
  const at::Tensor whole = at::arange(3 << 16, at::kInt).view({3 << 10, 64});  // 256 bytes a row, 3 blocks
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", whole);
  file.close();
  const std::string bytes = read_bytes(folder / "a.h5");
  const size_t position = bytes.find(std::string(static_cast<const char*>(whole.data_ptr()), whole.nbytes()));
  ASSERT_NE(position, std::string::npos);
  std::string damaged = bytes;
  damaged[position + 1500 * 256 + 7] ^= 4;
  write_bytes(folder / "a.h5", damaged);
  const Hdf5File back = Hdf5File::open(folder / "a.h5");
  EXPECT_TRUE(at::equal(back.read_rows("x", 3, 1024), whole.slice(0, 3, 1024)));
  EXPECT_TRUE(at::equal(back.read_rows("x", 2048, 3000), whole.slice(0, 2048, 3000)));
  for (const auto& [begin, end] : {std::pair{1500, 1501}, {1024, 1025}, {2047, 2048}, {1000, 3000}})
    EXPECT_NE(message_of([&] { back.read_rows("x", begin, end); }).find("a.h5: x:"), std::string::npos)
        << begin;
  EXPECT_NE(message_of([&] { back.read("x"); }), "");
}

TEST(Hdf5File, EveryRangeOfRowsComesBackWhateverTheBlocks) {
  TemporaryFolder folder;
  std::map<std::string, at::Tensor> tensors{{"wide", at::arange(5 * 70'000, at::kFloat).view({5, 70'000})},
                                            {"narrow", at::arange(70'000, at::kDouble)},
                                            {"even", at::arange(4 << 15, at::kLong).view({4, 1 << 15})}};
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  for (const auto& [name, tensor] : tensors) file.write(name, tensor);
  file.close();
  const Hdf5File back = Hdf5File::open(folder / "a.h5");
  for (const auto& [name, tensor] : tensors) {
    const int64_t rows = tensor.size(0), step = std::max<int64_t>(1, rows / 7);
    for (int64_t begin = 0; begin <= rows; begin += step)
      for (int64_t end = begin; end <= rows; end += step)
        EXPECT_TRUE(at::equal(back.read_rows(name, begin, end), tensor.slice(0, begin, end)))
            << name << " " << begin << " " << end;
  }
}

TEST(Hdf5File, ADatasetIsKnownByItsNameDtypeAndShape) {
  TemporaryFolder folder;
  const std::vector<std::pair<std::string, at::Tensor>> tensors{{"x", at::ones({4})},
                                                                {"y", at::ones({4})},
                                                                {"x", at::ones({2, 2})},
                                                                {"x", at::ones({4}, at::kInt)},
                                                                {"x", at::zeros({4})}};
  std::set<uint32_t> checksums;
  for (const auto& [name, tensor] : tensors) {
    Hdf5File file = Hdf5File::create(folder / "a.h5");
    file.write(name, tensor);
    const uint32_t checksum = file.checksum(name);
    file.close();
    EXPECT_EQ(Hdf5File::open(folder / "a.h5").checksum(name), checksum);
    checksums.insert(checksum);
  }
  EXPECT_EQ(checksums.size(), tensors.size());
}

TEST(Hdf5File, DatasetsThatSwappedNamesAndAttributesThatLieAreFound) {
  TemporaryFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", at::ones({4}).to(at::kHalf));
  file.write("y", at::zeros({4}).to(at::kHalf));
  file.write("z", at::zeros({4}).to(at::kHalf));
  file.close();
  {
    const Hdf5Handle raw(H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    H5Lmove(raw, "x", raw, "t", H5P_DEFAULT, H5P_DEFAULT);
    H5Lmove(raw, "y", raw, "x", H5P_DEFAULT, H5P_DEFAULT);
    H5Lmove(raw, "t", raw, "y", H5P_DEFAULT, H5P_DEFAULT);
    H5Adelete_by_name(raw, "z", "dtype", H5P_DEFAULT);
    const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Tset_size(type, 8);
    const Hdf5Handle attribute(
        H5Acreate_by_name(raw, "z", "dtype", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    H5Awrite(attribute, type, "bfloat16");
  }
  const Hdf5File back = Hdf5File::open(folder / "a.h5");
  for (const std::string name : {"x", "y", "z"}) {
    EXPECT_NE(message_of([&] { back.read(name); }).find(": " + name + ": is damaged"), std::string::npos);
    EXPECT_NE(message_of([&] { back.read_rows(name, 1, 2); }).find("is damaged"), std::string::npos);
    EXPECT_NE(message_of([&] { back.read_rows(name, 1, 1); }).find("is damaged"), std::string::npos);
  }
}

TEST(Hdf5File, AFileOfAnotherFormatIsRefusedWithARemedy) {
  TemporaryFolder folder;
  {
    const Hdf5Handle raw(H5Fcreate((folder / "a.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                         H5Fclose);
  }
  EXPECT_NE(message_of([&] { Hdf5File::open(folder / "a.h5"); }).find("a.h5: was written by another version"),
            std::string::npos);
}

TEST(Hdf5File, NoDamageAnywhereGivesWrongNumbers) {
  TemporaryFolder folder;
  const at::Tensor tensor = at::arange(32, at::kFloat);
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", tensor);
  file.write_attribute("x", "row_begin", int64_t{77});
  file.write("t", std::string("a text"));
  file.close();
  const std::string bytes = read_bytes(folder / "a.h5");
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] ^= 0x10;
    write_bytes(folder / "a.h5", damaged);
    try {
      const Hdf5File back = Hdf5File::open(folder / "a.h5");
      EXPECT_TRUE(at::equal(back.read("x"), tensor)) << "byte " << i;
      EXPECT_TRUE(at::equal(back.read_rows("x", 5, 9), tensor.slice(0, 5, 9))) << "byte " << i;
      EXPECT_EQ(back.attribute_number("x", "row_begin"), 77) << "byte " << i;
      EXPECT_EQ(back.read_text("t"), "a text") << "byte " << i;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorClass::storage);
    }
  }
}

TEST(Hdf5File, AFileCutShortIsRefused) {
  TemporaryFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", at::ones({1000}));
  file.close();
  const std::string bytes = read_bytes(folder / "a.h5");
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    write_bytes(folder / "a.h5", bytes.substr(0, size));
    EXPECT_NE(message_of([&] { Hdf5File::open(folder / "a.h5").read("x"); }).find("a.h5"), std::string::npos)
        << size << " bytes";
  }
}

TEST(Hdf5File, MistakesAreToldByName) {
  TemporaryFolder folder;
  EXPECT_NE(message_of([&] { Hdf5File::open(folder / "none.h5"); }).find("none.h5"), std::string::npos);
  EXPECT_NE(message_of([&] { Hdf5File::create(folder / "no" / "folder.h5"); }).find("folder.h5"),
            std::string::npos);
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", at::ones({2}));
  EXPECT_NE(message_of([&] { file.write("x", at::ones({2})); }).find("x"), std::string::npos);
  file.write("t", std::string("text"));
  file.close();
  Hdf5File back = Hdf5File::open(folder / "a.h5");
  EXPECT_NE(message_of([&] { back.read("y"); }).find(": y:"), std::string::npos);
  EXPECT_NE(message_of([&] { back.read("t"); }).find(": t:"), std::string::npos);
  EXPECT_NE(message_of([&] { back.read_text("x"); }).find(": x:"), std::string::npos);
  EXPECT_NE(message_of([&] { back.attribute_text("x", "no"); }).find("no"), std::string::npos);
  EXPECT_NE(message_of([&] { back.write("z", at::ones({1})); }).find("reading"), std::string::npos);
}

TEST(Checksum, IsCrc32c) {
  // The check value of the CRC catalogue, and RFC 3720's vector of 32 zero bytes.
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0').data(), 32), 0x8A9136AAu);
}

TEST(Checksum, BothFormsAgreeAndMayBeTakenInParts) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text.push_back(static_cast<char>(i * 37 ^ i >> 3));
  for (size_t begin = 0; begin < 9; ++begin)
    for (size_t size = 0; size < 40; ++size) {
      const char* data = text.data() + begin;
      EXPECT_EQ(crc32c(data, size), crc32c_portable(data, size));
      EXPECT_EQ(crc32c(data + size, 50, crc32c(data, size)), crc32c(data, size + 50));
      EXPECT_EQ(crc32c_portable(data + size, 50, crc32c_portable(data, size)), crc32c(data, size + 50));
    }
}

}  // namespace
}  // namespace efface
