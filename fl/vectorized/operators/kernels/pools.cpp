// Maxima over 2 x 2 pixels that do not overlap, of maps with even sides, and their gradient.
//
// Two vectors of a row are taken apart into even and odd pixels four by four, which the processor
// does at once; so maxima come in another order, and so do their gradients.

#include <vector>

#include "tensors.h"
#include "vectors.h"

namespace fednf {
namespace {

// PyTorch's order: a later pixel counts if it is greater, or not a number.
template <class T>
inline auto beats(T later, T best) { return (later > best) | (later != later); }

template <class T>
inline T greatest(T best, T second, T third, T fourth) {
  for (const T later : {second, third, fourth}) best = beats(later, best) ? later : best;
  return best;
}

// Turns four pixels into their gradients: `grad` for the greatest, 0 for the others.
template <class T>
inline void route(T grad, T& first, T& second, T& third, T& fourth) {
  const T nothing{};
  T best = first;
  first = grad;
  const auto next = [&](T& its, auto&... earlier) {
    const T later = its;
    const auto better = beats(later, best);
    its = better ? grad : nothing;
    ((earlier = better ? nothing : earlier), ...);
    best = better ? later : best;
  };
  next(second, first);
  next(third, first, second);
  next(fourth, first, second, third);
}

struct Row {  // two vectors of it, as even and odd pixels
  Vector even, odd;
  explicit Row(const float* from) {
    constexpr auto all = std::make_index_sequence<LANES>();
    const Vector a = load(from), b = load(from + LANES);
    even = mix<0, 2, 4, 6>(a, b, all), odd = mix<1, 3, 5, 7>(a, b, all);
  }
  void write(float* to) const {
    constexpr auto all = std::make_index_sequence<LANES>();
    store(to, mix<0, 4, 1, 5>(even, odd, all));
    store(to + LANES, mix<2, 6, 3, 7>(even, odd, all));
  }
};

// From the order of pixels to that of a Row, whose four come two from each half; and back.
template <size_t... I>
inline Vector as_row(Vector v, std::index_sequence<I...>) {
  return Vector{v[I / 4 * 2 + I % 4 / 2 * (LANES / 2) + I % 2]...};
}
template <size_t... I>
inline Vector as_pixels(Vector v, std::index_sequence<I...>) {
  return Vector{v[I % (LANES / 2) / 2 * 4 + I / (LANES / 2) * 2 + I % 2]...};
}

void maxima(const float* upper, const float* lower, float* to, long n) {
  long j = 0;
  for (; j + LANES <= n; j += LANES) {
    const Row u(upper + 2 * j), l(lower + 2 * j);
    const Vector found = greatest(u.even, u.odd, l.even, l.odd);
    store(to + j, as_pixels(found, std::make_index_sequence<LANES>()));
  }
  for (; j < n; ++j)
    to[j] = greatest(upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1]);
}

void gradient(const float* upper, const float* lower, const float* grad, float* to_upper,
              float* to_lower, long n) {
  long j = 0;
  for (; j + LANES <= n; j += LANES) {
    Row u(upper + 2 * j), l(lower + 2 * j);
    const Vector its = as_row(load(grad + j), std::make_index_sequence<LANES>());
    route(its, u.even, u.odd, l.even, l.odd);
    u.write(to_upper + 2 * j), l.write(to_lower + 2 * j);
  }
  for (; j < n; ++j) {
    float first = upper[2 * j], second = upper[2 * j + 1];
    float third = lower[2 * j], fourth = lower[2 * j + 1];
    route(grad[j], first, second, third, fourth);
    to_upper[2 * j] = first, to_upper[2 * j + 1] = second;
    to_lower[2 * j] = third, to_lower[2 * j + 1] = fourth;
  }
}

// Calls f(begin of two rows, begin of their maxima).
template <class F>
void pairs(const Tensor& x, F f) {
  STD_TORCH_CHECK(x.dim() >= 2 && is_float(x) && x.size(-1) % 2 == 0 && x.size(-2) % 2 == 0,
                  "maps are float32 and of even sides; got ", told(x));
  const long width = x.size(-1), rows = width ? x.numel() / width : 0;
  for (long row = 0; row < rows; row += 2) f(row * width, row / 2 * (width / 2));
}

Tensor max_pool(const Tensor& x_) {
  const Tensor x = contiguous(x_);
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  for (auto side = sizes.end() - 2; side != sizes.end(); ++side) *side /= 2;
  const Tensor y = new_empty(x, sizes);
  const float* from = floats(x);
  float* to = to_write(y);
  const long width = x.size(-1);
  pairs(x, [&](long at, long out) {
    maxima(from + at, from + at + width, to + out, width / 2);
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
  pairs(x, [&](long at, long out) {
    gradient(from + at, from + at + width, dy + out, to + at, to + at + width, width / 2);
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
}  // namespace fednf
