#include "core/subspace/projector.hpp"

#include "distributed/collectives.hpp"
#include "distributed/error.hpp"

namespace efface {

std::pair<int64_t, int64_t> basis_slice(const Basis& basis, int rank, int size) {
  return even_range(is_sharded(basis.id.input) ? basis.n : basis.vectors.size(1), rank, size);
}

Projector::Projector(const Basis& basis, const Mesh& mesh, at::ScalarType dtype) {
  if (!basis.vectors.defined()) return;
  const auto [begin, end] = basis_slice(basis, mesh.tensor_rank(), mesh.tensor_size());
  Basis slice = basis;
  if (is_sharded(basis.id.input)) {
    slice.vectors = basis.vectors.narrow(0, begin, end - begin);
  } else {
    slice.vectors = basis.vectors.narrow(1, begin, end - begin);
    slice.weights = basis.weights.narrow(0, begin, end - begin);
  }
  *this = from_slice(slice, mesh, dtype);
}

Projector Projector::from_slice(const Basis& slice, const Mesh& mesh, at::ScalarType dtype) {
  Projector projector;
  if (!slice.vectors.defined()) return projector;
  projector.sharded_input_ = is_sharded(slice.id.input);
  projector.complement_ = slice.complement;
  projector.tensor_ = mesh.tensor;
  projector.vectors_ = slice.vectors.to(mesh.device, dtype).contiguous();
  projector.weights_ = slice.weights.to(mesh.device, dtype).contiguous();
  projector.scaled_ = slice.complement || projector.weights_.eq(1).all().item<bool>()
                          ? projector.vectors_
                          : projector.vectors_ * projector.weights_.unsqueeze(0);
  return projector;
}

// This rank's term of the sum over the tensor group: (D V_r) w V_r^T, or D_r V_r.
at::Tensor Projector::partial(const at::Tensor& d) const {
  const at::Tensor coordinates = at::matmul(d.to(vectors_.scalar_type()), vectors_);
  return sharded_input_ ? coordinates : at::matmul(coordinates, scaled_.t());
}

at::Tensor Projector::complete(const at::Tensor& d, const at::Tensor& sum) const {
  const at::Tensor retained = sharded_input_ ? at::matmul(sum, scaled_.t()) : sum;
  return (complement_ ? retained : d.to(retained.scalar_type()) - retained).to(d.scalar_type());
}

at::Tensor Projector::apply(const at::Tensor& d) const {
  if (is_identity()) return d;
  return complete(d, all_reduce_sum(partial(d), tensor_));
}

std::vector<at::Tensor> Projector::apply_all(const std::vector<const Projector*>& projectors,
                                             const std::vector<at::Tensor>& d) {
  std::vector<at::Tensor> result(d);
  std::vector<size_t> active;
  std::vector<at::Tensor> flat, partials;
  for (size_t i = 0; i < d.size(); ++i) {
    if (projectors[i]->is_identity()) continue;
    active.push_back(i);
    partials.push_back(projectors[i]->partial(d[i]));
    flat.push_back(partials.back().reshape({-1}));
  }
  if (active.empty()) return result;
  const Communicator& tensor = projectors[active.front()]->tensor_;
  if (tensor.size() > 1) {
    const at::Tensor sum = all_reduce_sum(at::cat(flat), tensor);
    int64_t offset = 0;
    for (at::Tensor& partial : partials) {
      const int64_t count = partial.numel();
      partial = sum.narrow(0, offset, count).view_as(partial);
      offset += count;
    }
  }
  for (size_t j = 0; j < active.size(); ++j)
    result[active[j]] = projectors[active[j]]->complete(d[active[j]], partials[j]);
  return result;
}

at::Tensor Projector::apply_to_sharded_rows(const at::Tensor& d) const {
  if (is_identity() || sharded_input_ || tensor_.size() == 1) return apply(d);
  const at::NoGradGuard no_grad;
  const at::Tensor vectors = tensor_.all_gather_rows(vectors_.t().contiguous());
  const at::Tensor weights = tensor_.all_gather_rows(weights_);
  const at::Tensor coordinates = at::matmul(d.to(vectors.scalar_type()), vectors.t());
  const at::Tensor retained = at::matmul(complement_ ? coordinates : coordinates * weights, vectors);
  return (complement_ ? retained : d.to(retained.scalar_type()) - retained).to(d.scalar_type());
}

}  // namespace efface
