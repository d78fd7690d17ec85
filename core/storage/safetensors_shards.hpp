// A model's weights in one file or several, as transformers saves them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/storage/safetensors.hpp"

namespace efface {

constexpr int64_t kDefaultShardBytes = 5'000'000'000;  ///< transformers' "5GB"

/// "5GB", "500MB", "1.5TB", "64KB" (powers of ten, as transformers reads them) in bytes; throws Error(usage).
int64_t parse_shard_size(const std::string& text);

/// Which tensors go into which file: in the order given, a new file before the one that would make it larger
/// than `largest` bytes. A tensor that is larger by itself has a file of its own. Positions in `tensors`.
std::vector<std::vector<size_t>> plan_shards(const std::vector<SafetensorsWriter::Declaration>& tensors,
                                             int64_t largest);

/// Writes `folder`/model.safetensors, or model-00001-of-0000N.safetensors ... and
/// model.safetensors.index.json, tensor by tensor in the declared order; no more than one is held. Throws
/// Error(storage) naming file and tensor.
class ShardedSafetensorsWriter {
 public:
  ShardedSafetensorsWriter(const std::filesystem::path& folder,
                           std::vector<SafetensorsWriter::Declaration> declarations,
                           int64_t largest = kDefaultShardBytes);
  ~ShardedSafetensorsWriter();
  void append(const at::Tensor& tensor);  ///< the next one; on the CPU, of the declared dtype and shape
  void close();                           ///< writes the index; throws when tensors are missing

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace efface
