// Convolutions of small maps: rows of a few pixels, each with zeros around, would be mostly zeros.
//
// So the images of a lane are laid out as a matrix: a row for each weight j of a filter, with all
// pixels p of all images that it meets. With it the three sums are products of matrices:
//
//   y = w col        dw = dy colᵀ        dcol = wᵀ dy, of which dx is the sum by pixels
//
// They take no more memory than the caches have, as long as maps are small.

#pragma once

#include <algorithm>

#include "geometry.h"
#include "sums.h"

namespace {

struct Columns {
  const Geometry& g;
  long weights, pixels, row;  // rows of the matrix, what is in them, and that with its padding

  explicit Columns(const Geometry& g)
      : g(g), weights(g.in * g.taps), pixels(g.batch * g.h.out() * g.w.out()),
        row(padded(pixels)) {}

  // Small maps, and filters that fill vectors.
  static bool fit(const Geometry& g) {
    return g.h.out() * g.w.out() <= MOST_PIXELS && g.in * g.taps % LANES == 0;
  }
  static constexpr long MOST_PIXELS = 24;

  // Calls f(where in the matrix, where in the images, how many) for pixels within the border, which
  // lie a stride apart in the images.
  template <class F>
  void runs(F f) const {
    for (long j = 0; j < weights; ++j) {
      const long c = j / g.taps, s = j % g.taps / g.w.kernel - g.h.pad;
      const long t = j % g.w.kernel - g.w.pad, stride = g.w.stride;
      const long begin = t < 0 ? (stride - 1 - t) / stride : 0;
      const long end = std::min(g.w.out(), (g.w.in - t + stride - 1) / stride);
      if (begin >= end) continue;
      for (long b = 0; b < g.batch; ++b)
        for (long n = 0; n < g.h.out(); ++n) {
          const long y = n * g.h.stride + s;
          if (y < 0 || y >= g.h.in) continue;
          f(j * row + (b * g.h.out() + n) * g.w.out() + begin,
            b * g.inputs + (c * g.h.in + y) * g.w.in + begin * stride + t, end - begin);
        }
    }
  }

  void gather(const float* images, float* col) const {
    std::fill_n(col, weights * row, 0.0f);
    const long stride = g.w.stride;
    runs([&](long to, long from, long n) {
      for (long i = 0; i < n; ++i) col[to + i] = images[from + i * stride];
    });
  }

  void scatter(const float* col, float* images) const {
    std::fill_n(images, g.batch * g.inputs, 0.0f);
    const long stride = g.w.stride;
    runs([&](long from, long to, long n) {
      for (long i = 0; i < n; ++i) images[to + i * stride] += col[from + i];
    });
  }

  // Between maps, image by image, and rows of all images.
  template <class F>
  void maps(F f) const {
    const long map = g.h.out() * g.w.out();
    for (long b = 0; b < g.batch; ++b)
      for (long o = 0; o < g.out; ++o) f(o * row + b * map, (b * g.out + o) * map, map);
  }

  // In floats: of the matrix, and of the outputs.
  long size() const { return weights * row; }
  long output_size() const { return g.out * row; }

  void forward(const float* images, const float* w, float* scratch, float* y) const {
    float *col = scratch, *out = col + size();
    gather(images, col);
    weighted_sums(by_weight(), w, weights, g.out, col, out, row);
    maps([&](long from, long to, long n) { std::copy_n(out + from, n, y + to); });
  }

  void backward(const float* dy, const float* images, const float* w, float* scratch, float* dx,
                float* dw) const {
    float *col = scratch, *transposed = col + size(), *grad = transposed + size();
    std::fill_n(grad, output_size(), 0.0f);
    maps([&](long to, long from, long n) { std::copy_n(dy + from, n, grad + to); });
    gather(images, col);
    transpose(col, transposed);
    Terms by_pixel(pixels);
    for (long p = 0; p < pixels; ++p) by_pixel.add(p, p * weights);
    weighted_sums(by_pixel, grad, row, g.out, transposed, dw, weights);
    if (!dx) return;
    Terms by_output(g.out);
    for (long o = 0; o < g.out; ++o) by_output.add(o * weights, o * row);
    weighted_sums(by_output, w, 1, weights, grad, col, row);
    scatter(col, dx);
  }

 private:
  Terms by_weight() const {
    Terms terms(weights);
    for (long j = 0; j < weights; ++j) terms.add(j, j * row);
    return terms;
  }

  void transpose(const float* col, float* to) const {
    for (long j = 0; j < weights; j += LANES)
      for (long p = 0; p < pixels; ++p)
        for (long i = j; i < j + LANES; ++i) to[p * weights + i] = col[i * row + p];
  }
};

}  // namespace
