// Convolutions of micro-batches on one core: every lane has its own images and its own weights.
//
// With p for a pixel of a map and j for a weight of a filter (channel and tap), these are sums
//
//   forward    y[o][p]  = sum_j w[o][j] x_j[p]      x_j: channel of j, shifted by the tap of j
//   backward  dx[c][p]  = sum_j w[j][c] dy_j[p]     one such sum for each phase of the stride
//             dw[o][j]  = sum_p dy[o][p] x_j[p]     see weights.h
//
// For the first two, maps are copied into planes with zeros around them, all of one pitch, so that a shift is an
// offset and a whole map is one long row of vectors: the zeros between two rows serve both.
// A stride of 2 splits the input into 2 x 2 phases, each an ordinary map. Sums run over blocks of
// rows x vectors that stay in registers, in an order that sizes of maps and filters decide alone.

#include <algorithm>
#include <tuple>
#include <vector>

#include "columns.h"
#include "geometry.h"
#include "standardize.h"
#include "sums.h"
#include "tensors.h"
#include "weights.h"

namespace {

// ---- Copies between maps and planes ---------------------------------------------------------
// Pixels stride * n + first, n in [begin, end), of one phase. For odd kernels and strides 1 and 2,
// n < out + reach: each has its place in a plane, and its gradient.
struct Phase {
  long stride, first, begin, end;
  Phase(const Axis& axis, long phase) : stride(axis.stride), first(phase - axis.pad) {
    begin = std::max(0L, (stride - 1 - first) / stride);
    end = std::max(begin, (axis.in - first + stride - 1) / stride);
  }
  long pixel(long n) const { return stride * n + first; }
  long size() const { return end - begin; }
};

// Rows are short: the last vector overlaps the one before it, and short rows take smaller ones.
template <int SIZE = LANES>
inline void copy(float* to, const float* from, long n) {
  if constexpr (SIZE > 1) {
    if (n < SIZE) return copy<SIZE / 2>(to, from, n);
    typedef typename Floats<SIZE>::InMemory Part;
    const auto move = [&](long i) { *(Part*)(to + i) = *(const Part*)(from + i); };
    for (long i = 0; i < n - SIZE; i += SIZE) move(i);
    move(n - SIZE);
  } else if (n) {
    *to = *from;
  }
}

void pad_input(const Geometry& g, const float* x, float* to) {
  for (long c = 0; c < g.in; ++c, x += g.h.in * g.w.in)
    for (long i = 0; i < g.h.phases(); ++i)
      for (long j = 0; j < g.w.phases(); ++j, to += g.x_plane) {
        const Phase v(g.h, i), u(g.w, j);
        for (long n = v.begin; n < v.end; ++n) {
          const float* from = x + v.pixel(n) * g.w.in + u.first;
          float* row = to + n * g.pitch;
          if (u.stride == 1) copy(row + u.begin, from + u.begin, u.size());
          else for (long m = u.begin; m < u.end; ++m) row[m] = from[2 * m];
        }
      }
}

void pad_output(const Geometry& g, const float* y, float* to) {
  for (long o = 0; o < g.out; ++o, to += g.y_plane)
    for (long n = 0; n < g.h.out(); ++n, y += g.w.out())
      copy(to + g.reach + n * g.pitch, y, g.w.out());
}

// From (O, C, taps) to (C, O, taps): read along rows, weights come from far memory in time.
void transpose(const Geometry& g, const float* w, float* to) {
  for (long o = 0; o < g.out; ++o)
    for (long c = 0; c < g.in; ++c, w += g.taps) copy(to + (c * g.out + o) * g.taps, w, g.taps);
}

// ---- One image of one lane, as planes -------------------------------------------------------
Terms forward_terms(const Geometry& g) {
  Terms terms(g.in * g.taps);
  for (long c = 0, j = 0; c < g.in; ++c)
    for (long s = 0; s < g.h.kernel; ++s)
      for (long t = 0; t < g.w.kernel; ++t) {
        const long phase = (c * g.h.phases() + s % g.h.stride) * g.w.phases() + t % g.w.stride;
        terms.add(j++, phase * g.x_plane + s / g.h.stride * g.pitch + t / g.w.stride);
      }
  return terms;
}

Terms backward_terms(const Geometry& g, long i, long j) {
  Terms terms(g.out * g.taps);
  for (long o = 0; o < g.out; ++o)
    for (long s = i; s < g.h.kernel; s += g.h.stride)
      for (long t = j; t < g.w.kernel; t += g.w.stride)
        terms.add(o * g.taps + s * g.w.kernel + t,
                  o * g.y_plane - s / g.h.stride * g.pitch - t / g.w.stride);
  return terms;
}

void forward(const Geometry& g, const Terms& terms, const float* x, const float* w, float* out,
             float* y) {
  const long row = padded(g.length);
  weighted_sums(terms, w, g.in * g.taps, g.out, x, out, row);
  for (long o = 0; o < g.out; ++o, out += row)
    for (long n = 0; n < g.h.out(); ++n, y += g.w.out()) copy(y, out + n * g.pitch, g.w.out());
}

void backward(const Geometry& g, long phase, const Terms& terms, const float* dy, const float* w,
              float* out, float* dx) {
  const Phase v(g.h, phase / g.w.stride), u(g.w, phase % g.w.stride);
  if (!v.size() || !u.size()) return;
  const long row = padded((v.size() - 1) * g.pitch + u.size());
  dy += g.reach + v.begin * g.pitch + u.begin;
  weighted_sums(terms, w, g.out * g.taps, g.in, dy, out, row);
  for (long c = 0; c < g.in; ++c, dx += g.h.in * g.w.in)
    for (long n = 0; n < v.size(); ++n) {
      float* to = dx + v.pixel(v.begin + n) * g.w.in + u.pixel(u.begin);
      const float* from = out + c * row + n * g.pitch;
      if (u.stride == 1) copy(to, from, u.size());
      else for (long m = 0; m < u.size(); ++m) to[2 * m] = from[m];
    }
}

// ---- Operators ------------------------------------------------------------------------------
Geometry geometry(const Tensor& x, const Tensor& w, long stride, long pad) {
  const bool flat = x.dim() == 4;
  STD_TORCH_CHECK((flat || x.dim() == 5) && w.dim() == x.dim() && x.size(0) == w.size(0) &&
                      x.size(2) == w.size(2) && x.numel() && w.numel(),
                  "x is (K, B, C, *S), w (K, O, C, *k), *S one or two sizes, none of them 0; got ",
                  told(x), " and ", told(w));
  STD_TORCH_CHECK(is_float(x) && is_float(w), "float32 only; got ", told(x), " and ", told(w));
  const Axis width{x.size(-1), w.size(-1), stride, pad};
  const Axis height = flat ? Axis{1, 1, 1, 0} : Axis{x.size(3), w.size(3), stride, pad};
  for (const Axis& axis : {height, width})
    STD_TORCH_CHECK(axis.kernel % 2 && 0 <= axis.pad && axis.pad < axis.kernel &&
                        axis.stride >= 1 && axis.stride <= 2 &&
                        axis.kernel <= axis.in + 2 * axis.pad,
                    "the kernel is odd and fits, 0 <= padding < kernel, the stride is 1 or 2; ",
                    "got kernel ", axis.kernel, " over ", axis.in, ", padding ", pad, ", stride ",
                    stride);
  return Geometry(x.size(1), x.size(2), w.size(1), height, width);
}

// Memory that a thread keeps between calls: zeros, then more.
float* scratch(long zeros, long more) {
  thread_local std::vector<float> memory;
  if (long(memory.size()) < zeros + more + 16) memory.resize(zeros + more + 16);
  // From a line of the cache on: vectors that lie across two take twice as long.
  float* at = memory.data() + (-reinterpret_cast<uintptr_t>(memory.data()) / sizeof(float)) % 16;
  std::fill_n(at, zeros, 0.0f);
  return at;
}

// A lane's filters as they are.
struct Filters {
  const float* w;
  long lane, count;  // floats from lane to lane, and in one
  float* dw;         // all lanes' gradients
  Filters(const Geometry& g, const Tensor& w, float* dw = nullptr)
      : w(floats(w)), lane(w.stride(0)), count(g.out * g.in * g.taps), dw(dw) {}
  const float* of(long k) const { return w + k * lane; }
  float* gradient(long k) const { return dw + k * count; }
  void done(long) const {}
};

// A lane's filters, standardized in the cache when its turn comes.
struct StandardizedFilters {
  const Filters raw;
  const float* gain;
  long lane, rows, n;  // of gains from lane to lane; filters, and weights of one
  double eps;
  float *dgain, *standard, *grad;
  std::vector<Filter>& filters;  // of the lane whose turn it is

  StandardizedFilters(const Geometry& g, const Tensor& w, const Tensor& gain, double eps,
                      float* dw = nullptr, float* dgain = nullptr)
      : raw(g, w, dw), gain(floats(gain)), lane(gain.stride(0)), rows(g.out), n(g.in * g.taps),
        eps(eps), dgain(dgain), filters(kept()) {
    thread_local std::vector<float> memory;
    if (long(memory.size()) < 2 * raw.count) memory.resize(2 * raw.count);
    standard = memory.data(), grad = standard + raw.count;
  }
  static std::vector<Filter>& kept() {
    thread_local std::vector<Filter> filters;
    return filters;
  }
  const float* of(long k) const {
    filters.clear();
    for (long r = 0; r < rows; ++r) {
      filters.emplace_back(raw.of(k) + r * n, n, eps);
      filters.back().forward(gain[k * lane + r], standard + r * n);
    }
    return standard;
  }
  float* gradient(long) const { return grad; }
  void done(long k) const {
    for (long r = 0; r < rows; ++r)
      dgain[k * rows + r] =
          filters[r].backward(gain[k * lane + r], grad + r * n, raw.gradient(k) + r * n);
  }
};

template <class Some>
Tensor convolve(const Geometry& g, const Tensor& x, const Some& filters) {
  std::vector<int64_t> sizes{x.size(0), g.batch, g.out, g.h.out(), g.w.out()};
  if (x.dim() == 4) sizes.erase(sizes.begin() + 3);
  const Tensor y = new_empty(x, sizes);
  const float* image = floats(x);
  float* to = to_write(y);
  if (Columns::fit(g)) {
    const Columns columns(g);
    float* more = scratch(0, columns.scratch());
    for (long k = 0; k < x.size(0); ++k, to += g.batch * g.outputs)
      columns.forward(image + k * x.stride(0), filters.of(k), more, to);
    return y;
  }
  const Terms terms = forward_terms(g);
  float *planes = scratch(g.x_image, g.out * padded(g.length)), *out = planes + g.x_image;
  for (long k = 0; k < x.size(0); ++k) {
    const float* weights = filters.of(k);
    for (long b = 0; b < g.batch; ++b, to += g.outputs) {
      pad_input(g, image + k * x.stride(0) + b * g.inputs, planes);
      forward(g, terms, planes, weights, out, to);
    }
  }
  return y;
}

// Returns the gradient of x, which is empty unless it is asked for: what a network is given needs
// none. That of the filters goes where they say.
template <class Some>
Tensor convolve_backward(const Geometry& g, const Tensor& dy, const Tensor& x,
                         const Some& filters, bool needs_x) {
  STD_TORCH_CHECK(is_float(dy) && dy.dim() == x.dim() && dy.size(0) == x.size(0) &&
                      dy.numel() == x.size(0) * g.batch * g.outputs,
                  "the gradient is not that of an output; got ", told(dy));
  const Tensor dx = needs_x ? empty_dense(x) : new_empty(x, std::vector<int64_t>{0});
  const float *image = floats(x), *grad = floats(dy);
  float* to = to_write(dx);
  if (Columns::fit(g)) {
    const Columns columns(g);
    float* more = scratch(0, columns.scratch());
    for (long k = 0; k < x.size(0); ++k, filters.done(k - 1))
      columns.backward(grad + k * dy.stride(0), image + k * x.stride(0), filters.of(k), more,
                       needs_x ? to + k * g.batch * g.inputs : nullptr, filters.gradient(k));
    return dx;
  }
  std::vector<Terms> phases;
  for (long p = 0; needs_x && p < g.h.stride * g.w.stride; ++p)
    phases.push_back(backward_terms(g, p / g.w.stride, p % g.w.stride));

  // Small maps are summed over together, large ones while they are in the cache.
  const long together = std::clamp(1024 / g.length, 1L, g.batch);
  WeightGradient of_w(g);
  const long zeros = of_w.zeros(together), y_image = needs_x ? g.y_image : 0;
  const long weights = g.out * g.in * g.taps;
  float* pixels = scratch(zeros + y_image, of_w.more() + g.in * g.y_plane + weights);
  float *planes = pixels + zeros, *out = planes + y_image;
  float *transposed = out + g.in * g.y_plane, *more = transposed + weights;
  of_w.use(pixels, together, more);
  for (long k = 0; k < x.size(0); ++k) {
    const float* standing = filters.of(k);
    if (needs_x) transpose(g, standing, transposed);
    for (long b = 0; b < g.batch; b += together) {
      const long images = std::min(together, g.batch - b);
      for (long i = 0; i < images; ++i) {
        const long n = b + i;  // of the lane
        const float* from = grad + k * dy.stride(0) + n * g.outputs;
        if (needs_x) pad_output(g, from, planes);
        for (size_t p = 0; p < phases.size(); ++p)
          backward(g, p, phases[p], planes, transposed, out, to + (k * g.batch + n) * g.inputs);
        of_w.take(i, image + k * x.stride(0) + n * g.inputs, from);
      }
      of_w.sum(images, b > 0);
    }
    of_w.write(filters.gradient(k));
    filters.done(k);
  }
  return dx;
}

Tensor lane_conv(const Tensor& x_, const Tensor& w_, int64_t stride, int64_t padding) {
  const Tensor x = by_lane(x_), w = by_lane(w_);
  const Geometry g = geometry(x, w, stride, padding);
  return convolve(g, x, Filters(g, w));
}

std::tuple<Tensor, Tensor> lane_conv_backward(const Tensor& dy, const Tensor& x_, const Tensor& w_,
                                              int64_t stride, int64_t padding, bool needs_x) {
  const Tensor x = by_lane(x_), w = by_lane(w_), dw = empty_dense(w);
  const Geometry g = geometry(x, w, stride, padding);
  return {convolve_backward(g, by_lane(dy), x, Filters(g, w, to_write(dw)), needs_x), dw};
}

void check_gain(const Tensor& gain, const Tensor& w) {
  STD_TORCH_CHECK(is_float(gain) && gain.dim() == 2 && gain.size(0) == w.size(0) &&
                      gain.size(1) == w.size(1),
                  "the gain is (K, O), of float32; got ", told(gain));
}

Tensor standardized_conv(const Tensor& x_, const Tensor& w_, const Tensor& gain_, double eps,
                         int64_t stride, int64_t padding) {
  const Tensor x = by_lane(x_), w = by_lane(w_), gain = by_lane(gain_);
  const Geometry g = geometry(x, w, stride, padding);
  check_gain(gain, w);
  return convolve(g, x, StandardizedFilters(g, w, gain, eps));
}

std::tuple<Tensor, Tensor, Tensor> standardized_conv_backward(
    const Tensor& dy, const Tensor& x_, const Tensor& w_, const Tensor& gain_, double eps,
    int64_t stride, int64_t padding, bool needs_x) {
  const Tensor x = by_lane(x_), w = by_lane(w_), gain = by_lane(gain_);
  const Geometry g = geometry(x, w, stride, padding);
  check_gain(gain, w);
  const Tensor dw = empty_dense(w), dgain = empty_dense(gain);
  const StandardizedFilters filters(g, w, gain, eps, to_write(dw), to_write(dgain));
  return {convolve_backward(g, by_lane(dy), x, filters, needs_x), dw, dgain};
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("lane_conv(Tensor x, Tensor w, int stride, int padding) -> Tensor");
  m.def("lane_conv_backward(Tensor grad, Tensor x, Tensor w, int stride, int padding, "
        "bool needs_x) -> (Tensor, Tensor)");
  m.def("standardized_conv(Tensor x, Tensor w, Tensor gain, float eps, int stride, int padding) "
        "-> Tensor");
  m.def("standardized_conv_backward(Tensor grad, Tensor x, Tensor w, Tensor gain, float eps, "
        "int stride, int padding, bool needs_x) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("lane_conv", TORCH_BOX(&lane_conv));
  m.impl("lane_conv_backward", TORCH_BOX(&lane_conv_backward));
  m.impl("standardized_conv", TORCH_BOX(&standardized_conv));
  m.impl("standardized_conv_backward", TORCH_BOX(&standardized_conv_backward));
}

}  // namespace
