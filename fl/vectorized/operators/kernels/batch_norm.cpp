// Batch normalization by the real examples of each lane's batch, which come before those that pad it.
//
// With x̂ = (x - μ)/√(v + ε), where μ and v are of the N numbers of a channel in real examples:
//
//   y = w x̂ + b      db = sum dy      dw = sum dy x̂      dx = w (dy - db/N - x̂ dw/N)/√(v + ε)
//
// for real examples. Those that only pad have no part in μ and v, so their dx = w dy/√(v + ε); so has
// one number alone, whose μ and v are the running statistics. All sums are over all examples. With
// `rectified`, y is max(0, the above), and dy is 0 where that is 0: a ReLU behind the norm.

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "rows.h"
#include "tensors.h"

namespace fednf {
namespace {

struct Lane {
  long images, real, channels, pixels;
  const float* x;

  // Calls f(channel, place of its map in the lane) of images from..to.
  template <class F>
  void maps(long from, long to, F f) const {
    for (long b = from, at = from * channels * pixels; b < to; ++b)
      for (long c = 0; c < channels; ++c, at += pixels) f(c, at);
  }
  long numbers() const { return real * pixels; }
};

// Calls f(lane, its number) of each.
template <class F>
void lanes(const Tensor& x, const Tensor& real, F f) {
  const float *from = floats(x), *counts = floats(real);
  const long images = x.size(1), channels = x.size(2);
  const long pixels = x.numel() / (x.size(0) * images * channels);
  for (long k = 0; k < x.size(0); ++k) {
    const long count = std::lround(counts[k * real.stride(0)]);
    STD_TORCH_CHECK(count > 0 && count <= images, "of ", images, " examples ", count, " are real");
    f(Lane{images, count, channels, pixels, from + k * x.stride(0)}, k);
  }
}

bool by_channel(const Tensor& t, const Tensor& x) {
  return t.dim() == 2 && t.size(0) == x.size(0) && t.size(1) == x.size(2) && is_float(t);
}

void check(const Tensor& x, const Tensor& a, const Tensor& b, const Tensor& real) {
  STD_TORCH_CHECK(x.dim() >= 3 && x.numel() && is_float(x) && by_channel(a, x) && by_channel(b, x) &&
                      real.dim() == 1 && real.size(0) == x.size(0) && is_float(real),
                  "x is (K, B, C, ...), others are (K, C) and the numbers of real examples (K), of "
                  "float32, none empty; got ",
                  told(x), ", ", told(a), ", ", told(b), " and ", told(real));
}

void check_moments(const Tensor& moments, const Tensor& x) {
  STD_TORCH_CHECK(moments.dim() == 3 && moments.size(0) == x.size(0) && moments.size(1) == 3 &&
                      moments.size(2) == x.size(2) && is_float(moments),
                  "moments are (K, 3, C); got ", told(moments), " for ", told(x));
}

// (K, 3, C): μ, v, and v as it is estimated without bias.
Tensor batch_moments(const Tensor& x_, const Tensor& mean_, const Tensor& variance_,
                     const Tensor& real, bool keeps) {
  const Tensor x = by_lane(x_), mean = by_lane(mean_), variance = by_lane(variance_);
  check(x, mean, variance, real);
  const long channels = x.size(2);
  const Tensor found = new_zeros(x, {x.size(0), 3, channels});
  lanes(x, real, [&](const Lane& lane, long k) {
    float *m = to_write(found) + k * 3 * channels, *v = m + channels, *unbiased = v + channels;
    const float n = float(lane.numbers());
    if (keeps && lane.numbers() == 1) {
      for (long c = 0; c < channels; ++c) {
        m[c] = floats(mean)[k * mean.stride(0) + c];
        v[c] = unbiased[c] = floats(variance)[k * variance.stride(0) + c];
      }
      return;
    }
    lane.maps(0, lane.real, [&](long c, long at) {
      m[c] += sum(lane.pixels, [&](long i, auto some) { return read(lane.x + at + i, some); });
    });
    for (long c = 0; c < channels; ++c) m[c] /= n;
    lane.maps(0, lane.real, [&](long c, long at) {
      v[c] += sum(lane.pixels, [&](long i, auto some) {
        const auto apart = read(lane.x + at + i, some) - m[c];
        return apart * apart;
      });
    });
    for (long c = 0; c < channels; ++c) unbiased[c] = v[c] / std::max(n - 1, 1.0f), v[c] /= n;
  });
  return found;
}

// w/√(v + ε) or, without w, 1/√(v + ε) of each channel.
std::vector<float> slopes(const float* moments, long channels, double eps, const float* w) {
  std::vector<float> found(channels);
  for (long c = 0; c < channels; ++c)
    found[c] = (w ? w[c] : 1) / std::sqrt(moments[channels + c] + float(eps));
  return found;
}

template <bool RECTIFIED>
Tensor forward(const Tensor& x_, const Tensor& w_, const Tensor& b_, const Tensor& moments_,
               const Tensor& real, double eps) {
  const Tensor x = by_lane(x_), w = by_lane(w_), b = by_lane(b_), moments = contiguous(moments_);
  check(x, w, b, real);
  check_moments(moments, x);
  const Tensor y = empty_dense(x);
  lanes(x, real, [&](const Lane& lane, long k) {
    const float *m = floats(moments) + k * 3 * lane.channels, *shift = floats(b) + k * b.stride(0);
    const auto slope = slopes(m, lane.channels, eps, floats(w) + k * w.stride(0));
    float* to = to_write(y) + k * lane.images * lane.channels * lane.pixels;
    lane.maps(0, lane.images, [&](long c, long at) {
      each(lane.pixels, [&](long i, auto some) {
        const auto found = (read(lane.x + at + i, some) - m[c]) * slope[c] + shift[c];
        write(to + at + i, RECTIFIED ? rectified(found) : found);
      });
    });
  });
  return y;
}

Tensor batch_norm(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& moments,
                  const Tensor& real, bool, double eps, bool rectified) {
  return rectified ? forward<true>(x, w, b, moments, real, eps)
                   : forward<false>(x, w, b, moments, real, eps);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <bool RECTIFIED>
Gradients backward(const Tensor& dy_, const Tensor& x_, const Tensor& w_, const Tensor& b_,
                   const Tensor& moments_, const Tensor& real, bool keeps, double eps) {
  const Tensor dy = contiguous(dy_), x = by_lane(x_), w = by_lane(w_), b = by_lane(b_);
  const Tensor moments = contiguous(moments_);
  check(x, w, b, real);
  check_moments(moments, x);
  STD_TORCH_CHECK(is_float(dy) && dy.numel() == x.numel(),
                  "the gradient is not that of an output; got ", told(dy));
  const Tensor dx = empty_dense(x), dw = new_zeros(w, w.sizes()), db = new_zeros(b, b.sizes());
  lanes(x, real, [&](const Lane& lane, long k) {
    const long channels = lane.channels, first = k * lane.images * channels * lane.pixels;
    const float *m = floats(moments) + k * 3 * channels, *scale = floats(w) + k * w.stride(0);
    const float* grad = floats(dy) + first;
    float *to = to_write(dx) + first, *shift = to_write(db) + k * channels;
    float* gain = to_write(dw) + k * channels;
    const auto slope = slopes(m, channels, eps, nullptr), factors = slopes(m, channels, eps, scale);
    const float* levels = floats(b) + k * b.stride(0);
    // dy behind the ReLU, whose sign is that of y as `forward` computes it.
    const auto behind = [&](long i, auto apart, long c, auto some) {
      const auto g = read(grad + i, some);
      if constexpr (RECTIFIED) return rectified(g, apart * factors[c] + levels[c]);
      return g;
    };
    lane.maps(0, lane.images, [&](long c, long at) {
      const auto [plain, tilted] = sums(lane.pixels, [&](long i, auto some) {
        const auto apart = read(lane.x + at + i, some) - m[c], g = behind(at + i, apart, c, some);
        return std::pair(g, g * apart);
      });
      shift[c] += plain, gain[c] += slope[c] * tilted;
    });
    const long taking = keeps && lane.numbers() == 1 ? 0 : lane.real;
    const float n = float(lane.numbers());
    lane.maps(0, taking, [&](long c, long at) {
      const float factor = scale[c] * slope[c], level = shift[c] / n, tilt = gain[c] * slope[c] / n;
      each(lane.pixels, [&](long i, auto some) {
        const auto apart = read(lane.x + at + i, some) - m[c];
        write(to + at + i, (behind(at + i, apart, c, some) - level - apart * tilt) * factor);
      });
    });
    lane.maps(taking, lane.images, [&](long c, long at) {
      const float factor = scale[c] * slope[c];
      each(lane.pixels, [&](long i, auto some) {
        write(to + at + i, behind(at + i, read(lane.x + at + i, some) - m[c], c, some) * factor);
      });
    });
  });
  return {dx, dw, db, new_zeros(moments, moments.sizes()), new_zeros(real, real.sizes())};
}

Gradients batch_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& b,
                              const Tensor& moments, const Tensor& real, bool keeps, double eps,
                              bool rectified) {
  return rectified ? backward<true>(dy, x, w, b, moments, real, keeps, eps)
                   : backward<false>(dy, x, w, b, moments, real, keeps, eps);
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("batch_moments(Tensor x, Tensor mean, Tensor variance, Tensor real, bool keeps) -> Tensor");
  m.def("batch_norm(Tensor x, Tensor scale, Tensor shift, Tensor moments, Tensor real, bool keeps, "
        "float eps, bool rectified) -> Tensor");
  m.def("batch_norm_backward(Tensor grad, Tensor x, Tensor scale, Tensor shift, Tensor moments, "
        "Tensor real, bool keeps, float eps, bool rectified) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("batch_moments", TORCH_BOX(&batch_moments));
  m.impl("batch_norm", TORCH_BOX(&batch_norm));
  m.impl("batch_norm_backward", TORCH_BOX(&batch_norm_backward));
}

}  // namespace
}  // namespace fednf
