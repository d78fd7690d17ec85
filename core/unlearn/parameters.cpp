#include "core/unlearn/parameters.hpp"

#include "distributed/error.hpp"

namespace efface {

at::Tensor Parameters::gather(const ParameterPiece& piece, const at::Tensor& flat) const {
  auto global = at::zeros({piece.global_rows, piece.global_columns}, flat.options());
  if (piece.primary && piece.rows > 0)
    global.narrow(0, piece.row_begin, piece.rows)
        .narrow(1, piece.column_begin, piece.columns)
        .copy_(piece.view(flat));
  mesh_.world.all_reduce(global);
  return global;
}

const ParameterPiece& Parameters::piece(const std::string& name) const {
  for (const ParameterPiece& piece : pieces_)
    if (piece.name == name) return piece;
  throw Error(ErrorClass::recipe, name + " is not trained");
}

void Parameters::set(const ParameterPiece& piece, const at::Tensor& global) {
  if (global.dim() != 2 || global.size(0) != piece.global_rows || global.size(1) != piece.global_columns)
    throw Error(ErrorClass::data, piece.name + " must be [" + std::to_string(piece.global_rows) + ", " +
                                      std::to_string(piece.global_columns) + "]");
  if (piece.rows > 0)
    piece.view(values_).copy_(
        global.narrow(0, piece.row_begin, piece.rows).narrow(1, piece.column_begin, piece.columns));
}

void check_same_bits(const at::Tensor& tensor, const Communicator& group, const std::string& what) {
  if (group.size() == 1 || tensor.numel() == 0) return;
  // Two sums of the bits, the second weighted by position: enough to tell drifted copies apart.
  const auto bits = tensor.flatten().view(at::kInt).to(at::kLong);
  const auto place = at::arange(1, bits.numel() + 1, bits.options());
  const auto hash = at::stack({bits.sum(), (bits * place).sum()});
  auto smallest = hash.clone(), largest = hash.clone();
  group.all_reduce(smallest, Reduction::min);
  group.all_reduce(largest, Reduction::max);
  if (!at::equal(smallest, largest))
    throw Error(ErrorClass::communication, what + " differ between ranks that should hold the same bits",
                "report this: a collective is not deterministic, or memory is faulty");
}

}  // namespace efface
