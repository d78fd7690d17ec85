// Damaged stores: what is read is what was written, to the bit, or Error(storage); never anything else.
#include <functional>
#include <random>

#include "core/subspace/store_manifest.hpp"
#include "core/subspace/subspace_store.hpp"
#include "distributed/error.hpp"
#include "tests/core/subspace/spectra.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/world.hpp"

namespace efface::testing {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWidth = 300;  // of 256 KiB blocks, a matrix has more than one
const InputId kReplicated{0, Input::qkv}, kSharded{11, Input::down};
const std::vector<InputId> kInputIds{kReplicated, kSharded};

// One kind of store: how one is written into a folder, and everything that can be read of it.
struct Kind {
  std::string name, data;
  std::function<void(const fs::path&, const std::string& seed)> write;
  std::function<std::vector<at::Tensor>(const fs::path&)> read;
};

at::Tensor scalars(std::initializer_list<double> values) { return at::tensor(at::ArrayRef<double>(values)); }

void write_covariances(const fs::path& folder, const std::string& seed) {
  CovarianceWriter writer(folder, single_mesh(), {{"model", "tiny"}});
  for (const InputId& id : kInputIds) {
    Covariance c;
    c.id = id;
    c.tokens = 1000;
    c.heldout_tokens = 300;
    c.norm_cap = 3.5;
    c.top_token_share = 0.25;
    for (BlockRows* rows : {&c.matrix, &c.heldout}) {
      *rows = make_block_rows(kWidth, single_mesh().tensor);
      rows->local.copy_(
          random_matrix(kWidth, kWidth, seed + input_name(id) + (rows == &c.matrix ? "m" : "h")));
    }
    c.sink_mean = random_matrix(1, kWidth, seed + "sink").flatten();
    writer.write(c);
  }
  writer.finish();
}

std::vector<at::Tensor> read_covariances(const fs::path& folder) {
  const CovarianceStore store = CovarianceStore::open(folder);
  std::vector<at::Tensor> all;
  for (const InputId& id : store.inputs()) {
    const Covariance c = store.read(id, single_mesh());
    all.insert(all.end(), {c.matrix.local, c.heldout.local, c.sink_mean,
                           scalars({static_cast<double>(c.tokens), static_cast<double>(c.heldout_tokens),
                                    c.norm_cap, c.top_token_share, static_cast<double>(c.matrix.n)})});
  }
  const Hdf5File file = Hdf5File::open(folder / "covariance-0-of-1.h5");
  for (const InputId& id : kInputIds) all.push_back(file.read_rows(input_name(id) + "/matrix", 100, 290));
  return all;
}

void write_bases(const fs::path& folder, const std::string& seed) {
  BasisWriter writer(folder, single_mesh().world);
  const at::Tensor u = std::get<0>(at::linalg_qr(random_matrix(kWidth, kWidth, seed)));
  for (const InputId& id : kInputIds)
    writer.write(make_basis(id, geometric_spectrum(kWidth, 0.9), u, id.layer == 0 ? 90 : 250, {}));
  writer.finish({{"model", "tiny"}});
}

std::vector<at::Tensor> read_bases(const fs::path& folder) {
  const BasisStore store = BasisStore::open(folder);
  std::vector<at::Tensor> all;
  for (const InputId& id : store.inputs())
    for (const Basis& b : {store.read(id), store.read_slice(id, single_mesh())})
      all.insert(
          all.end(),
          {b.vectors, b.weights, b.eigenvalues,
           scalars({static_cast<double>(b.n), static_cast<double>(b.k), static_cast<double>(b.complement)})});
  const Hdf5File file = Hdf5File::open(folder / "bases-0.h5");
  for (const InputId& id : kInputIds) all.push_back(file.read_rows(input_name(id) + "/vectors", 7, 45));
  return all;
}

const std::vector<Kind> kKinds{{"covariances", "covariance-0-of-1.h5", write_covariances, read_covariances},
                               {"bases", "bases-0.h5", write_bases, read_bases}};

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& x, const auto& y) {
           return x.scalar_type() == y.scalar_type() && at::equal(x, y);
         });
}

class DamagedStore : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    kind.write(good.path(), "a");
    kind.write(other.path(), "b");  // the same names and shapes, other values
    expected = kind.read(good.path());
    manifest = read_bytes(good / "manifest.json");
    data = read_bytes(good / kind.data);
    ASSERT_FALSE(same(expected, kind.read(other.path())));
  }

  void TearDown() override {
    RecordProperty("cases", cases);
    RecordProperty("found", found);
  }

  /// Reads everything of what the store has now. True: refused by Error(storage) that names `file`; false:
  /// read to the bit. Anything else fails.
  bool is_found(const std::string& what, const std::string& file) {
    ++cases;
    try {
      EXPECT_TRUE(same(kind.read(good.path()), expected)) << what << ": other values were read";
      return false;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorClass::storage) << what << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find(file), std::string::npos) << what << ": " << error.what();
    } catch (const std::exception& error) {
      ADD_FAILURE() << what << ": not an Error but " << error.what();
    }
    ++found;
    return true;
  }

  bool with_data(const std::string& what, const std::string& bytes) {
    write_bytes(good / kind.data, bytes);
    const bool result = is_found(what, kind.data);
    write_bytes(good / kind.data, data);
    return result;
  }
  bool with_manifest(const std::string& what, const std::string& bytes) {
    write_bytes(good / "manifest.json", bytes);
    const bool result = is_found(what, "manifest.json");
    write_bytes(good / "manifest.json", manifest);
    return result;
  }

  size_t below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); }
  std::string flipped(std::string bytes, size_t at) {
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
    return bytes;
  }

  const Kind& kind = kKinds.at(GetParam());
  TemporaryFolder good, other;
  std::vector<at::Tensor> expected;
  std::string manifest, data;
  std::mt19937_64 random{20240611};
  int cases = 0, found = 0;
};
INSTANTIATE_TEST_SUITE_P(Kinds, DamagedStore, ::testing::Range(0, 2));

// The places of every dataset's values and of every attribute's checksums in the file.
std::vector<std::pair<size_t, size_t>> places(const std::string& data, const fs::path& path, bool checksums) {
  std::vector<std::pair<size_t, size_t>> places;
  const Hdf5File file = Hdf5File::open(path);
  for (const std::string& group : file.list())
    for (const std::string& name : file.list(group)) {
      const std::string dataset = group + "/" + name;
      if (checksums) {
        const uint32_t checksum = file.checksum(dataset);
        places.emplace_back(data.find(std::string(reinterpret_cast<const char*>(&checksum), 4)), 4);
      } else {
        const at::Tensor values = file.read(dataset);
        places.emplace_back(
            data.find(std::string(static_cast<const char*>(values.data_ptr()), values.nbytes())),
            values.nbytes());
      }
      EXPECT_NE(places.back().first, std::string::npos) << dataset;
    }
  return places;
}

TEST_P(DamagedStore, DataAndTheirChecksums) {
  for (const bool checksums : {false, true})
    for (const auto& [begin, size] : places(data, good / kind.data, checksums))
      for (int i = 0; i < 12; ++i) {
        const size_t at = begin + below(size);
        EXPECT_TRUE(
            with_data((checksums ? "checksum byte " : "data byte ") + std::to_string(at), flipped(data, at)));
      }
  EXPECT_GE(cases, 100);
}

TEST_P(DamagedStore, EveryByteThatIsNoValueOfADataset) {
  std::vector<bool> is_value(data.size(), false);
  for (const auto& [begin, size] : places(data, good / kind.data, false))
    std::fill_n(is_value.begin() + static_cast<int64_t>(begin), size, true);
  for (size_t at = 0; at < data.size(); at += is_value[at] ? 1 : 1 + below(60))
    if (!is_value[at]) with_data("HDF5 metadata byte " + std::to_string(at), flipped(data, at));
  for (size_t at = 0; at < 48; ++at) with_data("header byte " + std::to_string(at), flipped(data, at));
  EXPECT_GE(found, 50) << "of " << cases;
}

TEST_P(DamagedStore, CutShortGrownOrGone) {
  for (int i = 0; i < 20; ++i) {
    const size_t size = below(data.size());
    EXPECT_TRUE(with_data("cut to " + std::to_string(size), data.substr(0, size)));
  }
  for (const size_t size : {size_t{0}, size_t{1}, size_t{8}, data.size() - 1})
    EXPECT_TRUE(with_data("cut to " + std::to_string(size), data.substr(0, size)));
  EXPECT_TRUE(with_data("a byte more", data + "x"));
  EXPECT_TRUE(with_data("of another store", read_bytes(other / kind.data)));
  fs::remove(good / kind.data);
  EXPECT_TRUE(is_found("gone", kind.data));
  fs::create_directory(good / kind.data);
  EXPECT_TRUE(is_found("a folder", kind.data));
}

TEST_P(DamagedStore, PagesOfZeros) {
  const std::string zeros(4096, '\0');
  for (size_t page = 0; page < data.size(); page += zeros.size()) {
    const size_t size = std::min(zeros.size(), data.size() - page);
    const bool was_zero = data.compare(page, size, zeros, 0, size) == 0;
    std::string damaged = data;
    damaged.replace(page, size, zeros, 0, size);
    if (!was_zero) {
      EXPECT_TRUE(with_data("page at " + std::to_string(page), damaged));
    }
  }
  EXPECT_GE(cases, 20);
}

TEST_P(DamagedStore, Manifest) {
  for (size_t at = 0; at < manifest.size(); at += 1 + below(12))
    EXPECT_TRUE(with_manifest("manifest byte " + std::to_string(at), flipped(manifest, at)));
  for (int i = 0; i < 10; ++i) {
    const size_t size = below(manifest.size());
    EXPECT_TRUE(with_manifest("manifest cut to " + std::to_string(size), manifest.substr(0, size)));
  }
  EXPECT_TRUE(with_manifest("zeros", std::string(manifest.size(), '\0')));
  EXPECT_TRUE(with_manifest("a space more", manifest + " "));
  write_bytes(good / "manifest.json", read_bytes(other / "manifest.json"));
  EXPECT_TRUE(is_found("another store's manifest", kind.data));
  TemporaryFolder stranger;
  kKinds.at(1 - GetParam()).write(stranger.path(), "a");
  EXPECT_TRUE(with_manifest("a manifest of the other kind", read_bytes(stranger / "manifest.json")));
  fs::remove(good / "manifest.json");
  EXPECT_TRUE(is_found("no manifest", "manifest.json"));
}

// Whole manifests that say what is not so: written with a right checksum.
TEST_P(DamagedStore, ManifestThatSaysWhatIsNotSo) {
  const auto whole = nlohmann::json::parse(manifest);
  const auto lies = [&](const std::string& what, const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json changed = whole;
    change(changed);
    write_manifest(good.path(), changed);
    EXPECT_TRUE(is_found(what + ": " + changed.dump(), "")) << changed.dump();
    write_bytes(good / "manifest.json", manifest);
  };
  const auto name = input_name(kReplicated);
  const std::vector<nlohmann::json> wrong{nullptr, "text", nlohmann::json::array(), {{"a", 1}},
                                          -7,      1e300,  18446744073709551615u};
  for (const auto& [field, value] : whole["inputs"][name].items())
    for (const auto& other_value : wrong) {
      // These the store may hold: they are checked by the manifest's checksum alone.
      if ((field == "norm_cap" || field == "top_token_share") && other_value.is_number() &&
          other_value.get<double>() > 0)
        continue;
      lies("field " + field, [&](auto& m) { m["inputs"][name][field] = other_value; });
    }
  for (const auto& [field, value] : whole["inputs"][name].items())
    if (value.is_number_integer() && field != "k" && field.find("tokens") == std::string::npos)
      lies("one more " + field, [&](auto& m) { m["inputs"][name][field] = value.template get<int>() + 1; });
  for (const auto& [field, value] : whole["inputs"][name].items())
    lies("no " + field, [&](auto& m) { m["inputs"][name].erase(field); });
  for (const auto& other_value : wrong) {
    lies("the input itself", [&](auto& m) { m["inputs"][name] = other_value; });
    for (const char* field : {"format", "kind", "inputs", "files"})
      lies(field, [&](auto& m) { m[field] = other_value; });
    lies("a file", [&](auto& m) { m["files"][kind.data] = other_value; });
    lies("its bytes", [&](auto& m) { m["files"][kind.data]["bytes"] = other_value; });
    lies("its checksums", [&](auto& m) { m["files"][kind.data]["crc32c"] = other_value; });
    if (whole.contains("tensor")) lies("tensor", [&](auto& m) { m["tensor"] = other_value; });
  }
  lies("no such file", [&](auto& m) { m["files"].erase(kind.data); });
  lies("an unknown input", [&](auto& m) { m["inputs"]["0.nothing"] = m["inputs"][name]; });
  for (const std::string away : {"../x.h5", "/etc/passwd", "..", ".", "", "a/b.h5"})
    if (whole["inputs"][name].contains("file"))
      lies("file " + away, [&](auto& m) {
        m["files"][away] = m["files"][kind.data];
        m["inputs"][name]["file"] = away;
      });
}

}  // namespace
}  // namespace efface::testing
