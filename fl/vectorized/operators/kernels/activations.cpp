// Activations with learnable scalars, of a layer or of a channel, that each lane has for itself.
//
// As PyTorch's operators these are up to seven, each with all of x, and three times as many for the
// gradients. Here x is read once for the result, and once with dy for all gradients.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <tuple>

#include "tensors.h"
#include "vectors.h"

namespace fednf {
namespace {

typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

// e^x = 2^n e^r with |r| <= ln(2)/2, whose series is cut where a float sees no difference; infinite
// from 88.4 on, and never below e^-87. NaN stays NaN.
inline Vector exponential(Vector x) {
  constexpr float LEAST = -87, MOST = 89, ROUND = 12582912;  // 1.5 * 2^23: only whole numbers there
  constexpr float LOG2 = 0.693145751953125f, REST = 1.428606765330187e-06f;  // ln 2, in two parts
  x = x > MOST ? Vector{} + MOST : x < LEAST ? Vector{} + LEAST : x;
  const Vector n = (x * 1.4426950408889634f + ROUND) - ROUND;
  const Vector r = (x - n * LOG2) - n * REST;
  Vector series = r * (1.0f / 5040) + 1.0f / 720;
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f})
    series = series * r + term;
  const Integers power = (__builtin_convertvector(n, Integers) + 127) << 23;
  return series * reinterpret_cast<const Vector&>(power);
}

inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

inline Vector root(Vector x) {
  float each[LANES];
  __builtin_memcpy(each, &x, sizeof x);
  for (float& one : each) one = std::sqrt(one);
  __builtin_memcpy(&x, each, sizeof x);
  return x;
}

// f(x) = (g/β) [silu(u) - silu(-βc)] with u = βx - βc
struct ZcSwish {
  static constexpr int SCALARS = 3, SUMS = 4;  // c, log β, g
  float beta, shift, scale, origin, origin_slope;

  explicit ZcSwish(const std::array<float, SCALARS>& scalars) {
    const auto [center, log_beta, g] = scalars;
    beta = std::exp(log_beta), shift = beta * center, scale = g;
    const float gate = 1 / (1 + std::exp(shift));
    origin = -shift * gate, origin_slope = gate * (1 - shift * (1 - gate));
  }

  Vector forward(Vector x) const {
    const Vector u = x * beta - shift;
    return (u * sigmoid(u) - origin) * (scale / beta);
  }

  Vector backward(Vector x, Vector dy, std::array<Vector, SUMS>& sums) const {
    const Vector u = x * beta - shift, gate = sigmoid(u), silu = u * gate;
    const Vector slope = gate * (1 + u * (1 - gate)), down = dy * slope;
    sums[0] += dy, sums[1] += dy * (silu - origin), sums[2] += down, sums[3] += down * u;
    return down * scale;
  }

  // By the sums of dy, dy (silu(u) - silu(-βc)), dy silu'(u) and dy silu'(u) u.
  std::array<double, SCALARS> gradients(const std::array<double, SUMS>& sums) const {
    const auto [all, values, slopes, tilts] = sums;
    return {scale * (origin_slope * all - slopes),
            scale / beta * (tilts + shift * origin_slope * all - values), values / beta};
  }
};

// f(x) = a x / r with r = √(1 + v²) and v = x √(ab)
struct Salu {
  static constexpr int SCALARS = 2, SUMS = 2;  // log a, log b
  static constexpr float FAR = 1e9;            // from here on r = |v|, and v² may be too large
  float a, bend;

  explicit Salu(const std::array<float, SCALARS>& scalars)
      : a(std::exp(scalars[0])), bend(std::exp((scalars[0] + scalars[1]) / 2)) {}

  // Returns 1/r, and lets `bent` be v²/r².
  Vector flatness(Vector x, Vector& bent) const {
    const Vector v = x * bend, size = v < 0 ? -v : v, squared = v * v;
    const Vector q = 1.0f / (size > FAR ? size : root(1 + squared));
    bent = size > FAR ? Vector{} + 1 : squared * q * q;
    return q;
  }

  Vector forward(Vector x) const {
    Vector bent;
    return x * a * flatness(x, bent);
  }

  Vector backward(Vector x, Vector dy, std::array<Vector, SUMS>& sums) const {
    Vector bent;
    const Vector q = flatness(x, bent), product = dy * (x * a * q);
    sums[0] += product, sums[1] += product * bent;
    return dy * a * q * q * q;
  }

  // By the sums of dy f and dy f v²/r².
  std::array<double, SCALARS> gradients(const std::array<double, SUMS>& sums) const {
    return {sums[0] - sums[1] / 2, -sums[1] / 2};
  }
};

// f(x) = (x/2) [1 + SALU(x)]
struct Swalu : Salu {
  using Salu::Salu;

  Vector forward(Vector x) const {
    const Vector half = x * 0.5f;
    return half + half * Salu::forward(x);
  }

  Vector backward(Vector x, Vector dy, std::array<Vector, SUMS>& sums) const {
    const Vector down = dy * 0.5f;
    return Salu::backward(x, down * x, sums) + (down + down * Salu::forward(x));
  }
};

template <class F>
using Scalars = std::array<Tensor, F::SCALARS>;

template <class F>
void check(const Tensor& x, const Scalars<F>& scalars) {
  STD_TORCH_CHECK(x.dim() >= 3 && x.numel() && is_float(x),
                  "x is (K, B, C, ...), of float32, not empty; got ", told(x));
  for (const Tensor& s : scalars)
    STD_TORCH_CHECK(s.dim() == 2 && s.size(0) == x.size(0) && is_float(s) &&
                        s.size(1) == scalars[0].size(1) &&
                        (s.size(1) == 1 || s.size(1) == x.size(2)),
                    "scalars are (K, 1) or (K, C), of float32; got ", told(s), " for ", told(x));
}

// Calls act(f, place, size, place of the scalars) of every run of numbers with the same scalars.
template <class F, class Act>
void runs(const Tensor& x, const Scalars<F>& scalars, Act act) {
  const long lanes = x.size(0), values = scalars[0].size(1), images = values == 1 ? 1 : x.size(1);
  const long size = x.numel() / (lanes * images * values);
  for (long k = 0, at = 0; k < lanes; ++k)
    for (long b = 0; b < images; ++b)
      for (long c = 0; c < values; ++c, at += size) {
        std::array<float, F::SCALARS> own;
        for (int s = 0; s < F::SCALARS; ++s)
          own[s] = floats(scalars[s])[k * scalars[s].stride(0) + c];
        act(F(own), at, size, k * values + c);
      }
}

// Calls f(place, count) for vectors, the last of which may have fewer numbers.
template <class F>
inline void vectors(long begin, long end, F f) {
  long i = begin;
  for (; i + LANES <= end; i += LANES) f(i, LANES);
  if (i < end) f(i, int(end - i));
}

inline Vector load_some(const float* from, int count) {
  if (count == LANES) return load(from);
  Vector v{};
  __builtin_memcpy(&v, from, 4 * count);
  return v;
}

inline void store_some(float* to, Vector v, int count) {
  if (count == LANES) return store(to, v);
  __builtin_memcpy(to, &v, 4 * count);
}

template <class F, class... Some>
Tensor forward(const Tensor& x_, const Some&... some) {
  const Tensor x = contiguous(x_);
  const Scalars<F> scalars{by_lane(some)...};
  check<F>(x, scalars);
  const Tensor y = empty_dense(x);
  const float* from = floats(x);
  float* to = to_write(y);
  runs<F>(x, scalars, [&](const F& f, long at, long size, long) {
    vectors(at, at + size, [&](long i, int count) {
      store_some(to + i, f.forward(load_some(from + i, count)), count);
    });
  });
  return y;
}

constexpr long PIECE = 4096;  // numbers whose sums are floats

template <class F, class... Some>
std::tuple<Tensor, Some...> backward(const Tensor& dy_, const Tensor& x_, const Some&... some) {
  const Tensor dy = contiguous(dy_), x = contiguous(x_);
  const Scalars<F> scalars{by_lane(some)...};
  check<F>(x, scalars);
  STD_TORCH_CHECK(is_float(dy) && dy.numel() == x.numel(),
                  "the gradient is not that of an output; got ", told(dy));
  const Tensor dx = empty_dense(x);
  const float *grad = floats(dy), *from = floats(x);
  float* to = to_write(dx);
  const Scalars<F> of_scalars{new_zeros(some, some.sizes())...};
  runs<F>(x, scalars, [&](const F& f, long at, long size, long place) {
    std::array<double, F::SUMS> totals{};
    for (long begin = at; begin < at + size; begin += PIECE) {
      std::array<Vector, F::SUMS> sums{};
      vectors(begin, std::min(begin + PIECE, at + size), [&](long i, int count) {
        const Vector x = load_some(from + i, count), dy = load_some(grad + i, count);
        store_some(to + i, f.backward(x, dy, sums), count);
      });
      for (int s = 0; s < F::SUMS; ++s) totals[s] += inside<LANES>(sums[s]);
    }
    const auto found = f.gradients(totals);
    for (int s = 0; s < F::SCALARS; ++s) to_write(of_scalars[s])[place] += float(found[s]);
  });
  return std::apply([&](const auto&... s) { return std::tuple(dx, s...); }, of_scalars);
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("zc_swish(Tensor x, Tensor center, Tensor log_beta, Tensor scale) -> Tensor");
  m.def("zc_swish_backward(Tensor grad, Tensor x, Tensor center, Tensor log_beta, Tensor scale) -> "
        "(Tensor, Tensor, Tensor, Tensor)");
  m.def("salu(Tensor x, Tensor log_a, Tensor log_b) -> Tensor");
  m.def("salu_backward(Tensor grad, Tensor x, Tensor log_a, Tensor log_b) -> "
        "(Tensor, Tensor, Tensor)");
  m.def("swalu(Tensor x, Tensor log_a, Tensor log_b) -> Tensor");
  m.def("swalu_backward(Tensor grad, Tensor x, Tensor log_a, Tensor log_b) -> "
        "(Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("zc_swish", TORCH_BOX((&forward<ZcSwish, Tensor, Tensor, Tensor>)));
  m.impl("zc_swish_backward", TORCH_BOX((&backward<ZcSwish, Tensor, Tensor, Tensor>)));
  m.impl("salu", TORCH_BOX((&forward<Salu, Tensor, Tensor>)));
  m.impl("salu_backward", TORCH_BOX((&backward<Salu, Tensor, Tensor>)));
  m.impl("swalu", TORCH_BOX((&forward<Swalu, Tensor, Tensor>)));
  m.impl("swalu_backward", TORCH_BOX((&backward<Swalu, Tensor, Tensor>)));
}

}  // namespace
}  // namespace fednf
