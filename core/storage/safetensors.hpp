// Reading and writing safetensors (https://github.com/huggingface/safetensors), memory-mapped.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace efface {

/// All tensors of a Hugging Face folder: model.safetensors, or the files named by
/// model.safetensors.index.json. Sizes are checked against the file before anything is allocated. Besides the
/// dtypes that are written, fp8 (E4M3 without infinities, E5M2) is read. Throws Error(model) naming file and
/// tensor.
class SafetensorsReader {
 public:
  static SafetensorsReader open_folder(const std::filesystem::path& folder);
  static SafetensorsReader open_file(const std::filesystem::path& file);

  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;  ///< in file order
  std::vector<int64_t> shape(const std::string& name) const;
  at::ScalarType dtype(const std::string& name) const;
  std::filesystem::path file_of(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const;  ///< __metadata__ of the first file

  /// A copy, in the file's dtype, on the CPU.
  at::Tensor read(const std::string& name) const;
  /// Slice [begin, end) along dimension `dim` (0 or 1); reads only those bytes.
  at::Tensor read_slice(const std::string& name, int dim, int64_t begin, int64_t end) const;

  /// The same into memory there is already, of the same shape and any dtype and device, without a copy in
  /// between; where nothing is converted the file's bytes go straight there, on all threads.
  void read_into(const at::Tensor& target, const std::string& name) const;
  void read_slice_into(const at::Tensor& target, const std::string& name, int dim, int64_t begin,
                       int64_t end) const;

 private:
  std::vector<int64_t> slice_shape(const std::string& name, int dim, int64_t begin, int64_t end) const;
  void require_shape(const at::Tensor& target, const std::string& name,
                     const std::vector<int64_t>& shape) const;

  struct State;
  std::shared_ptr<const State> state_;
};

/// Writes a file tensor by tensor, so that no more than one is held: names, dtypes and shapes are declared
/// first, the tensors follow in that order. The file is written beside its name, flushed and renamed by
/// close(); without close() nothing is left. Throws Error(storage) naming file and tensor.
class SafetensorsWriter {
 public:
  struct Declaration {
    std::string name;
    at::ScalarType dtype;
    std::vector<int64_t> shape;
  };
  SafetensorsWriter(const std::filesystem::path& file, std::vector<Declaration> declarations,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  void append(const at::Tensor& tensor);  ///< the next one; on the CPU, of the declared dtype and shape
  void close();                           ///< throws when tensors are missing

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// All at once, in the order given; the same guarantees.
void write_safetensors(const std::filesystem::path& file,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace efface
