// Group normalization, with a scale and a shift of channels that each lane has for itself.
//
// With x̂ = (x - μ)/√(σ² + ε) of an image's group of N numbers, and y = w x̂ + b by channel:
//
//   db = sum dy      dw = sum dy x̂      dx = (w dy - (sum w dy)/N - x̂ (sum w dy x̂)/N)/√(σ² + ε)
//
// db and dw are summed over a lane's images, the others over a group, by channel. PyTorch's operator
// has one scale for all images; with lanes, scale and shift are other operators, each with all of x.
// With `rectified`, y is max(0, the above), and dy is 0 where that is 0: a ReLU behind the norm.

#include <utility>

#include "rows.h"
#include "tensors.h"

namespace fednf {
namespace {

void check(const Tensor& x, const Tensor& w, const Tensor& b, int64_t groups) {
  const auto fits = [&](const Tensor& t) {
    return t.dim() == 2 && t.size(0) == x.size(0) && t.size(1) == x.size(2) && is_float(t);
  };
  STD_TORCH_CHECK(x.dim() >= 3 && x.numel() && is_float(x) && fits(w) && fits(b) && groups > 0 &&
                      x.size(2) % groups == 0,
                  "x is (K, B, C, ...), scale and shift (K, C), of float32, none empty, and groups "
                  "divide C; got ",
                  told(x), ", ", told(w), ", ", told(b), " and ", groups, " groups");
}

// Calls f(row, first channel, its place among all lanes' channels, place in y) of each group.
template <class F>
void groups_of(const Tensor& x, int64_t groups, double eps, F f) {
  const float* from = floats(x);
  const long images = x.size(1), channels = x.size(2), some = channels / groups;
  const long size = x.numel() / (x.size(0) * images * groups);
  long to = 0;
  for (long k = 0; k < x.size(0); ++k) {
    const float* at = from + k * x.stride(0);
    for (long b = 0; b < images; ++b)
      for (long g = 0; g < groups; ++g, at += size, to += size)
        f(Sample(at, size, eps), k, g * some, to);
  }
}

template <bool RECTIFIED>
Tensor forward(const Tensor& x_, const Tensor& w_, const Tensor& b_, int64_t groups, double eps) {
  const Tensor x = by_lane(x_), w = by_lane(w_), b = by_lane(b_);
  check(x, w, b, groups);
  const Tensor y = empty_dense(x);
  const float *scale = floats(w), *shift = floats(b);
  const long some = x.size(2) / groups;
  float* to = to_write(y);
  groups_of(x, groups, eps, [&](const Sample& row, long k, long first, long at) {
    const long pixels = row.n / some;
    for (long c = 0; c < some; ++c) {
      const float factor = scale[k * w.stride(0) + first + c] * row.slope;
      const float level = shift[k * b.stride(0) + first + c];
      const float* x = row.x + c * pixels;
      float* y = to + at + c * pixels;
      each(pixels, [&](long i, auto some) {
        const auto found = (read(x + i, some) - row.mean) * factor + level;
        write(y + i, RECTIFIED ? rectified(found) : found);
      });
    }
  });
  return y;
}

Tensor group_norm(const Tensor& x, const Tensor& w, const Tensor& b, int64_t groups, double eps,
                  bool rectified) {
  return rectified ? forward<true>(x, w, b, groups, eps) : forward<false>(x, w, b, groups, eps);
}

// The gradient of a group; `scale`, `level` and their gradients are those of its first channel on.
template <bool RECTIFIED>
void backward(const Sample& row, long channels, const float* scale, const float* levels,
              const float* dy, float* dx, float* dw, float* db) {
  const long pixels = row.n / channels;
  // dy behind the ReLU, whose sign is that of y as `forward` computes it.
  const auto at = [&](const float* grad, auto apart, long c, auto some) {
    const auto g = read(grad, some);
    if constexpr (RECTIFIED) return rectified(g, apart * (scale[c] * row.slope) + levels[c]);
    return g;
  };
  float of_y = 0, of_x = 0;
  for (long c = 0; c < channels; ++c) {
    const float *x = row.x + c * pixels, *grad = dy + c * pixels;
    const auto [shift, tilted] = sums(pixels, [&](long i, auto some) {
      const auto apart = read(x + i, some) - row.mean, g = at(grad + i, apart, c, some);
      return std::pair(g, g * apart);
    });
    const float slope = row.slope * tilted;
    db[c] += shift, dw[c] += slope;
    of_y += scale[c] * shift, of_x += scale[c] * slope;
  }
  const float level = of_y / float(row.n), tilt = of_x * row.slope / float(row.n);
  for (long c = 0; c < channels; ++c) {
    const float *x = row.x + c * pixels, *grad = dy + c * pixels;
    float* to = dx + c * pixels;
    each(pixels, [&](long i, auto some) {
      const auto apart = read(x + i, some) - row.mean;
      write(to + i, (at(grad + i, apart, c, some) * scale[c] - level - apart * tilt) * row.slope);
    });
  }
}

std::tuple<Tensor, Tensor, Tensor> group_norm_backward(const Tensor& dy_, const Tensor& x_,
                                                       const Tensor& w_, const Tensor& b_,
                                                       int64_t groups, double eps,
                                                       bool rectified) {
  const Tensor dy = contiguous(dy_), x = by_lane(x_), w = by_lane(w_), b = by_lane(b_);
  check(x, w, b, groups);
  STD_TORCH_CHECK(is_float(dy) && dy.numel() == x.numel(),
                  "the gradient is not that of an output; got ", told(dy));
  const Tensor dx = empty_dense(x), dw = new_zeros(w, w.sizes()), db = new_zeros(b, b.sizes());
  const float *grad = floats(dy), *scale = floats(w), *level = floats(b);
  float *of_x = to_write(dx), *of_w = to_write(dw), *of_b = to_write(db);
  const long channels = x.size(2);
  groups_of(x, groups, eps, [&](const Sample& row, long k, long first, long at) {
    const long place = k * channels + first;
    const auto run = rectified ? backward<true> : backward<false>;
    run(row, channels / groups, scale + k * w.stride(0) + first, level + k * b.stride(0) + first,
        grad + at, of_x + at, of_w + place, of_b + place);
  });
  return {dx, dw, db};
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("group_norm(Tensor x, Tensor scale, Tensor shift, int groups, float eps, bool rectified) "
        "-> Tensor");
  m.def("group_norm_backward(Tensor grad, Tensor x, Tensor scale, Tensor shift, int groups, "
        "float eps, bool rectified) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("group_norm", TORCH_BOX(&group_norm));
  m.impl("group_norm_backward", TORCH_BOX(&group_norm_backward));
}

}  // namespace
}  // namespace fednf
