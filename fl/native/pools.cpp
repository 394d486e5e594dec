// Maxima over 2 x 2 pixels that do not overlap, of maps with even sides, and their gradient.
//
// Kept apart in arrays for each of the four places, so that the compiler makes vectors of all loops.

#include <algorithm>
#include <vector>

#include "tensors.h"

namespace {

constexpr long CHUNK = 64;  // maxima at a time; what belongs to them stays in the nearest cache

// PyTorch's order: a later pixel counts if it is greater, or not a number.
inline bool beats(float later, float best) { return (later > best) | (later != later); }

// Not inlined: the compiler would forget that nothing overlaps.
__attribute__((noinline)) void maxima(const float* __restrict upper, const float* __restrict lower,
                                      float* __restrict to, long n) {
  for (long j = 0; j < n; ++j) {
    float best = upper[2 * j];
    for (const float later : {upper[2 * j + 1], lower[2 * j], lower[2 * j + 1]})
      best = beats(later, best) ? later : best;
    to[j] = best;
  }
}

__attribute__((noinline)) void gradient(const float* __restrict upper,
                                        const float* __restrict lower, const float* __restrict grad,
                                        float* __restrict to_upper, float* __restrict to_lower,
                                        long n) {
  float a[CHUNK], b[CHUNK], c[CHUNK], d[CHUNK];
  for (long j = 0; j < n; ++j) {
    float best = upper[2 * j], first = grad[j], second, third, fourth;
    const auto next = [&](float later, float& its, auto&... earlier) {
      const bool better = beats(later, best);
      its = better ? grad[j] : 0;
      ((earlier = better ? 0 : earlier), ...);
      best = better ? later : best;
    };
    next(upper[2 * j + 1], second, first);
    next(lower[2 * j], third, first, second);
    next(lower[2 * j + 1], fourth, first, second, third);
    a[j] = first, b[j] = second, c[j] = third, d[j] = fourth;
  }
  for (long j = 0; j < n; ++j) to_upper[2 * j] = a[j], to_upper[2 * j + 1] = b[j];
  for (long j = 0; j < n; ++j) to_lower[2 * j] = c[j], to_lower[2 * j + 1] = d[j];
}

// Calls f(begin of the two rows, begin of their maxima, how many) for parts of rows.
template <class F>
void parts(const Tensor& x, F f) {
  STD_TORCH_CHECK(x.dim() >= 2 && is_float(x) && x.size(-1) % 2 == 0 && x.size(-2) % 2 == 0,
                  "maps are float32 and of even sides; got ", told(x));
  const long width = x.size(-1), rows = width ? x.numel() / width : 0;
  for (long row = 0; row < rows; row += 2)
    for (long j = 0; j < width / 2; j += CHUNK)
      f(row * width + 2 * j, row / 2 * (width / 2) + j, std::min(CHUNK, width / 2 - j));
}

Tensor max_pool(const Tensor& x_) {
  const Tensor x = contiguous(x_);
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  for (auto side = sizes.end() - 2; side != sizes.end(); ++side) *side /= 2;
  const Tensor y = new_empty(x, sizes);
  const float* from = floats(x);
  float* to = to_write(y);
  parts(x, [&](long at, long out, long n) {
    maxima(from + at, from + at + x.size(-1), to + out, n);
  });
  return y;
}

Tensor max_pool_backward(const Tensor& grad_, const Tensor& x_) {
  const Tensor grad = contiguous(grad_), x = contiguous(x_);
  STD_TORCH_CHECK(is_float(grad) && 4 * grad.numel() == x.numel(),
                  "the gradient is not that of an output; got ", told(grad));
  const Tensor dx = empty_dense(x);
  const float *from = floats(x), *dy = floats(grad);
  float* to = to_write(dx);
  const long width = x.size(-1);
  parts(x, [&](long at, long out, long n) {
    gradient(from + at, from + at + width, dy + out, to + at, to + at + width, n);
  });
  return dx;
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("max_pool(Tensor x) -> Tensor");
  m.def("max_pool_backward(Tensor grad, Tensor x) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("max_pool", TORCH_BOX(&max_pool));
  m.impl("max_pool_backward", TORCH_BOX(&max_pool_backward));
}

}  // namespace
