// Tensors, by the part of PyTorch's interface that stays as it is from version to version, whose
// headers a compiler reads in two seconds; it takes eight for the others.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <string>

namespace fednf {

using torch::stable::Tensor;

inline bool is_float(const Tensor& t) {
  return t.scalar_type() == torch::headeronly::ScalarType::Float;
}

inline const float* floats(const Tensor& t) { return t.const_data_ptr<float>(); }
inline float* to_write(const Tensor& t) { return t.mutable_data_ptr<float>(); }

// `empty_like` would lay it out as t is.
inline Tensor empty_dense(const Tensor& t) { return new_empty(t, t.sizes()); }

// A tensor each of whose lanes is contiguous. They may lie apart, as the weights of a layer do.
inline Tensor by_lane(const Tensor& t) {
  long dense = 1;
  for (long d = t.dim() - 1; d > 0; dense *= t.size(d--))
    if (t.stride(d) != dense && t.size(d) != 1) return contiguous(t);
  return t;
}

// For messages: type and sizes.
inline std::string told(const Tensor& t) {
  std::string text = torch::headeronly::toString(t.scalar_type());
  for (long d = 0; d < t.dim(); ++d) text += (d ? ", " : " (") + std::to_string(t.size(d));
  return text + (t.dim() ? ")" : " ()");
}

}  // namespace fednf
