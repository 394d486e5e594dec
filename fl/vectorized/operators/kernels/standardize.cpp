// Standardized rows by themselves: of filters whose convolutions are PyTorch's.

#include "standardize.h"
#include "tensors.h"

namespace fednf {
namespace {

void check(const Tensor& x, const Tensor& gain) {
  STD_TORCH_CHECK(x.dim() == 3 && gain.dim() == 2 && gain.size(0) == x.size(0) &&
                      gain.size(1) == x.size(1) && x.numel() && is_float(x) && is_float(gain),
                  "x is (K, R, N) and the gain (K, R), of float32, none empty; got ", told(x),
                  " and ", told(gain));
}

// Calls f(row, gain, place of the row among all, and of its numbers).
template <class F>
void rows(const Tensor& x, const Tensor& gain, double eps, F f) {
  const float *from = floats(x), *gains = floats(gain);
  const long count = x.size(1), n = x.size(2);
  for (long k = 0; k < x.size(0); ++k)
    for (long r = 0; r < count; ++r)
      f(Filter(from + k * x.stride(0) + r * n, n, eps), gains[k * gain.stride(0) + r], k * count + r,
        (k * count + r) * n);
}

Tensor standardize(const Tensor& x_, const Tensor& gain_, double eps) {
  const Tensor x = by_lane(x_), gain = by_lane(gain_);
  check(x, gain);
  const Tensor y = empty_dense(x);
  float* to = to_write(y);
  rows(x, gain, eps, [&](const Filter& row, float g, long, long at) { row.forward(g, to + at); });
  return y;
}

std::tuple<Tensor, Tensor> standardize_backward(const Tensor& dy_, const Tensor& x_,
                                                const Tensor& gain_, double eps) {
  const Tensor dy = contiguous(dy_), x = by_lane(x_), gain = by_lane(gain_);
  check(x, gain);
  STD_TORCH_CHECK(is_float(dy) && dy.numel() == x.numel(),
                  "the gradient is not that of an output; got ", told(dy));
  const Tensor dx = empty_dense(x), dg = empty_dense(gain);
  const float* grad = floats(dy);
  float *to = to_write(dx), *to_gain = to_write(dg);
  rows(x, gain, eps, [&](const Filter& row, float g, long place, long at) {
    to_gain[place] = row.backward(g, grad + at, to + at);
  });
  return {dx, dg};
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("standardize(Tensor x, Tensor gain, float eps) -> Tensor");
  m.def("standardize_backward(Tensor grad, Tensor x, Tensor gain, float eps) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("standardize", TORCH_BOX(&standardize));
  m.impl("standardize_backward", TORCH_BOX(&standardize_backward));
}

}  // namespace
}  // namespace fednf
