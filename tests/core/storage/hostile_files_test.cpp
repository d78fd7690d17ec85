// Files that lie: each is refused with an Error that names it, and nothing is allocated on its word.
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "core/storage/gguf.hpp"
#include "core/storage/gguf_file.hpp"
#include "core/storage/safetensors.hpp"
#include "tests/core/storage/gguf_builder.hpp"
#include "tests/support/temporary_folder.hpp"

namespace {
std::atomic<size_t> largest_allocation{0};
}

void* operator new(size_t bytes) {
  size_t seen = largest_allocation.load();
  while (seen < bytes && !largest_allocation.compare_exchange_weak(seen, bytes)) {
  }
  if (void* memory = std::malloc(bytes ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes ? bytes : 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace efface {
namespace {

using testing::GgufBuilder;
using testing::raw;
using testing::raw_text;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::tiny_llama;
using testing::write_bytes;

constexpr uint64_t kHuge = uint64_t{1} << 63;
constexpr size_t kMargin = 1 << 16;

/// `read` must throw Error(model) with the file's name in it, without an allocation larger than a small
/// margin and 16 times the file.
void expect_refused(const std::string& what, const std::string& bytes,
                    const std::function<void(const std::filesystem::path&)>& read) {
  TemporaryFolder folder;
  const auto file = folder / "hostile.file";
  write_bytes(file, bytes);
  largest_allocation = 0;
  try {
    read(file);
    ADD_FAILURE() << what << ": was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorClass::model) << what;
    EXPECT_NE(std::string(error.what()).find("hostile.file"), std::string::npos)
        << what << ": " << error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << what << ": not an Error but " << error.what();
  }
  EXPECT_LE(largest_allocation.load(), kMargin + 16 * bytes.size()) << what;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1)
      << what << ": leftovers";
}

std::string with_length(uint64_t length, const std::string& rest) { return raw(length) + rest; }
std::string safetensors(const std::string& header, size_t data = 8) {
  return with_length(header.size(), header + std::string(data, 'x'));
}
/// A header of one tensor "t" with these fields.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data = 8) {
  return safetensors(
      R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", data);
}

void read_safetensors(const std::filesystem::path& file) {
  const auto reader = SafetensorsReader::open_file(file);
  for (const auto& name : reader.names()) reader.read(name);
}

TEST(HostileSafetensors, AreRefusedByName) {
  const std::string good = one("F32", "[2]", "[0,8]");
  const std::pair<const char*, std::string> cases[] = {
      {"empty", ""},
      {"three bytes", "abc"},
      {"no header", with_length(0, "")},
      {"header longer than the file", with_length(100, "{}")},
      {"header of 2^63 bytes", with_length(kHuge, "{}")},
      {"header length that wraps", with_length(~uint64_t{0} - 3, "{}")},
      {"text", "this is no safetensors file at all"},
      {"an array", safetensors("[1,2]", 0)},
      {"a number", safetensors("12", 0)},
      {"half a JSON", safetensors(R"({"t":{"dtype":"F32")", 0)},
      {"two JSON values", safetensors("{} {}", 0)},
      {"deep nesting", safetensors("{\"t\":" + std::string(100'000, '['), 0)},
      {"deep objects", safetensors(R"({"t":{"dtype":{"dtype":{}}}})", 0)},
      {"invalid UTF-8",
       safetensors("{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}")},
      {"a name twice", safetensors(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})")},
      {"a field twice",
       safetensors(R"({"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})")},
      {"an unknown field", safetensors(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":[1]}})")},
      {"no dtype", safetensors(R"({"t":{"shape":[2],"data_offsets":[0,8]}})")},
      {"no shape", safetensors(R"({"t":{"dtype":"F32","data_offsets":[0,8]}})")},
      {"no offsets", safetensors(R"({"t":{"dtype":"F32","shape":[2]}})")},
      {"a tensor that is a number", safetensors(R"({"t":8})")},
      {"a tensor that is null", safetensors(R"({"t":null})")},
      {"metadata that is a number", safetensors(R"({"__metadata__":{"a":1}})", 0)},
      {"metadata with a list", safetensors(R"({"__metadata__":{"shape":[1]}})", 0)},
      {"unknown dtype", one("F4", "[2]", "[0,8]")},
      {"a shape that is negative", one("F32", "[-2]", "[0,8]")},
      {"a shape with a fraction", one("F32", "[2.0]", "[0,8]")},
      {"a shape with a text", one("F32", R"(["2"])", "[0,8]")},
      {"a shape over 2^64", one("F32", "[99999999999999999999]", "[0,8]")},
      {"a shape whose product wraps to 2", one("F32", "[9223372036854775809,2]", "[0,8]")},
      {"a zero beside huge sizes", one("F32", "[0,4294967296,4294967296]", "[0,0]", 0)},
      {"too many dimensions", one("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,8]", "[0,8]")},
      {"a shape larger than its bytes", one("F32", "[3]", "[0,8]")},
      {"a shape smaller than its bytes", one("F32", "[1]", "[0,8]")},
      {"one offset", one("F32", "[2]", "[8]")},
      {"three offsets", one("F32", "[2]", "[0,8,8]")},
      {"offsets the wrong way", one("F32", "[2]", "[8,0]")},
      {"an end outside the file", one("F32", "[4]", "[0,16]")},
      {"a begin outside the file", one("F32", "[2]", "[1000000,1000008]")},
      {"offsets near 2^64", one("F32", "[2]", "[18446744073709551600,18446744073709551608]")},
      {"a hole in front", one("F32", "[1]", "[4,8]")},
      {"bytes of no tensor", one("F32", "[1]", "[0,4]")},
      {"a hole in the middle", safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                           R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})")},
      {"an overlap", safetensors(R"({"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},)"
                                 R"("b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}})")},
      {"the same bytes twice", safetensors(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                                           R"("b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})")},
      {"cut short by one byte", good.substr(0, good.size() - 1)},
      {"one byte too many", good + "x"},
  };
  for (const auto& [what, bytes] : cases) expect_refused(what, bytes, read_safetensors);
  TemporaryFolder folder;
  write_bytes(folder / "good", good);
  EXPECT_NO_THROW(read_safetensors(folder / "good")) << "the cases above fail for their own reason";
}

TEST(HostileSafetensors, NoPrefixIsAcceptedAndNoFlippedBitIsFatal) {
  TemporaryFolder folder;
  const std::string good =
      safetensors(R"({"__metadata__":{"a":"b"},"t":{"dtype":"U8","shape":[2,4],"data_offsets":[0,8]}})");
  for (size_t size = 0; size < good.size(); ++size) {
    write_bytes(folder / "f", good.substr(0, size));
    EXPECT_THROW(read_safetensors(folder / "f"), Error) << size;
  }
  for (size_t bit = 0; bit < good.size() * 8; bit += 5) {
    std::string damaged = good;
    damaged[bit / 8] ^= 1 << (bit % 8);
    write_bytes(folder / "f", damaged);
    try {
      read_safetensors(folder / "f");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorClass::model);
    }
  }
}

void import(const std::filesystem::path& file) { import_gguf(file, file.parent_path() / "model"); }

std::string changed(const std::function<void(GgufBuilder&)>& change) {
  GgufBuilder gguf = tiny_llama();
  change(gguf);
  return gguf.build();
}

std::string list_claiming(uint32_t type, uint64_t count) { return raw<uint32_t>(9) + raw(type) + raw(count); }

TEST(HostileGguf, AreRefusedByName) {
  using B = GgufBuilder;
  const std::vector<std::string> tokens{
      "<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "c", "abb"};
  const std::pair<const char*, std::function<void(B&)>> cases[] = {
      {"another magic", [](B& g) { g.magic = "GGML"; }},
      {"version 1", [](B& g) { g.version = 1; }},
      {"version 4", [](B& g) { g.version = 4; }},
      {"big endian", [](B& g) { g.version = 0x03000000; }},
      {"2^63 keys", [](B& g) { g.claimed_keys = kHuge; }},
      {"2^63 tensors", [](B& g) { g.claimed_tensors = kHuge; }},
      {"one key too many", [](B& g) { g.claimed_keys = g.keys.size() + 1; }},
      {"one key too few", [](B& g) { g.claimed_keys = g.keys.size() - 1; }},
      {"a text of 2^63 bytes", [](B& g) { g.set_raw("x", raw<uint32_t>(8) + raw(kHuge)); }},
      {"a text that wraps", [](B& g) { g.set_raw("x", raw<uint32_t>(8) + raw(~uint64_t{0})); }},
      {"2^63 bytes in a list", [](B& g) { g.set_raw("x", list_claiming(0, kHuge)); }},
      {"a list whose size wraps", [](B& g) { g.set_raw("x", list_claiming(10, (uint64_t{1} << 61) + 1)); }},
      {"2^60 texts", [](B& g) { g.set_raw("x", list_claiming(8, uint64_t{1} << 60)); }},
      {"a list of lists", [](B& g) { g.set_raw("x", list_claiming(9, 1)); }},
      {"an unknown value type", [](B& g) { g.set_raw("x", raw<uint32_t>(77) + raw(kHuge)); }},
      {"a key twice", [](B& g) { g.keys.push_back(g.keys[0]); }},
      {"a tensor twice", [](B& g) { g.tensors.push_back(g.tensors[0]); }},
      {"no dimensions", [](B& g) { g.tensors[0].dimensions = {}; }},
      {"five dimensions",
       [](B& g) {
         g.tensors[0].dimensions = {32, 8, 1, 1, 1};
       }},
      {"a size of zero",
       [](B& g) {
         g.tensors[0].dimensions = {32, 0};
       }},
      {"sizes whose product wraps",
       [](B& g) {
         g.tensors[0].dimensions = {uint64_t{1} << 32, uint64_t{1} << 32};
       }},
      {"a size of 2^63", [](B& g) { g.tensors[0].dimensions = {kHuge}; }},
      {"bytes that wrap", [](B& g) { g.tensors[0].dimensions = {uint64_t{1} << 62}; }},
      {"an offset outside", [](B& g) { g.tensors[0].claimed_offset = uint64_t{1} << 40; }},
      {"an offset near 2^64", [](B& g) { g.tensors[0].claimed_offset = ~uint64_t{31}; }},
      {"an offset not aligned", [](B& g) { g.tensors[1].claimed_offset = 4; }},
      {"an overlap", [](B& g) { g.tensors[1].claimed_offset = 32; }},
      {"an unknown tensor type", [](B& g) { g.tensors[0].type = 999; }},
      {"a tensor type not read", [](B& g) { g.tensors[0].type = 11; }},
      {"a row that is no whole block", [](B& g) { g.tensor("blk.0.ffn_down.weight").type = 8; }},
      {"alignment 0", [](B& g) { g.set("general.alignment", 0u); }},
      {"alignment 3", [](B& g) { g.set("general.alignment", 3u); }},
      {"alignment 2^31", [](B& g) { g.set("general.alignment", 1u << 31); }},
      {"no architecture", [](B& g) { g.remove("general.architecture"); }},
      {"another architecture", [](B& g) { g.set("general.architecture", "mamba"); }},
      {"2^31 - 1 layers", [](B& g) { g.set("llama.block_count", (1u << 31) - 1); }},
      {"no layers", [](B& g) { g.set("llama.block_count", 0u); }},
      {"layers as a text", [](B& g) { g.set("llama.block_count", "1"); }},
      {"layers as a list", [](B& g) { g.set("llama.block_count", std::vector<int32_t>{1}); }},
      {"no heads", [](B& g) { g.set("llama.attention.head_count", 0u); }},
      {"heads that do not divide", [](B& g) { g.set("llama.attention.head_count", 3u); }},
      {"another hidden size", [](B& g) { g.set("llama.embedding_length", 64u); }},
      {"scaled rotary frequencies", [](B& g) { g.set("llama.rope.scaling.type", "yarn"); }},
      {"partly rotated heads", [](B& g) { g.set("llama.rope.dimension_count", 8u); }},
      {"experts", [](B& g) { g.set("llama.expert_count", 8u); }},
      {"a missing tensor", [](B& g) { g.tensors.pop_back(); }},
      {"a tensor too many", [](B& g) { g.set_fp32("rope_freqs.weight", {8}, std::vector<float>(8)); }},
      {"an unknown tokenizer", [](B& g) { g.set("tokenizer.ggml.model", "bert"); }},
      {"a tokenizer without its scores", [](B& g) { g.set("tokenizer.ggml.model", "llama"); }},
      {"an unknown pre-tokenizer", [](B& g) { g.set("tokenizer.ggml.pre", "tekken"); }},
      {"no pre-tokenizer", [](B& g) { g.remove("tokenizer.ggml.pre"); }},
      {"no tokens", [](B& g) { g.remove("tokenizer.ggml.tokens"); }},
      {"tokens that are numbers", [](B& g) { g.set("tokenizer.ggml.tokens", std::vector<int32_t>(8)); }},
      {"too few types", [](B& g) { g.set("tokenizer.ggml.token_type", std::vector<int32_t>(7)); }},
      {"a token twice", [](B& g) { g.set("tokenizer.ggml.tokens", std::vector<std::string>(8, "a")); }},
      {"a token that is not UTF-8",
       [&](B& g) {
         auto bad = tokens;
         bad[6] = "\xff";
         g.set("tokenizer.ggml.tokens", bad);
       }},
      {"a merge of one part", [](B& g) { g.set("tokenizer.ggml.merges", std::vector<std::string>{"ab"}); }},
      {"a merge of no tokens", [](B& g) { g.set("tokenizer.ggml.merges", std::vector<std::string>{"x y"}); }},
      {"an end token outside", [](B& g) { g.set("tokenizer.ggml.eos_token_id", 8u); }},
  };
  for (const auto& [what, change] : cases) expect_refused(what, changed(change), import);
  expect_refused("empty", "", import);
  expect_refused("four bytes", "GGUF", import);
}

TEST(HostileGguf, NoPrefixIsAccepted) {
  TemporaryFolder folder;
  const std::string good = tiny_llama().build();
  for (size_t size = 0; size < good.size(); size += size < 2000 ? 11 : 997) {
    write_bytes(folder / "f", good.substr(0, size));
    EXPECT_THROW(GgufFile(folder / "f"), Error) << size;
  }
}

TEST(HostileGguf, NoFlippedBitIsFatal) {
  TemporaryFolder folder;
  const GgufBuilder gguf = tiny_llama();
  const std::string good = gguf.build();
  for (size_t bit = 0; bit < gguf.table().size() * 8; bit += 37) {
    std::string damaged = good;
    damaged[bit / 8] ^= 1 << (bit % 8);
    write_bytes(folder / "f", damaged);
    try {
      const GgufFile file(folder / "f");
      for (const auto& name : file.tensor_names()) file.read(name);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorClass::model);
    }
  }
}

TEST(HostileFiles, WhatIsNoFileIsRefusedAtOnce) {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder / "folder");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const std::string name : {"folder", "pipe", "missing"}) {
    EXPECT_THROW(SafetensorsReader::open_file(folder / name), Error) << name;
    EXPECT_THROW(GgufFile(folder / name), Error) << name;
  }
}

}  // namespace
}  // namespace efface
