// Convolutions of small maps: rows of a few pixels, each with zeros around, would be mostly zeros.
//
// So images of a lane are laid out as a matrix: a row for each weight j of a filter, with all
// pixels p of these images that it meets. With it two of the sums are products of matrices:
//
//   y = w col        dcol = wᵀ dy, of which dx is the sum by pixels
//
// They are summed here, since a library's products differ by where a lane's weights lie in memory.
// As many images are taken at a time as leave the matrix in the cache.

#pragma once

#include <algorithm>

#include "geometry.h"
#include "memory.h"
#include "sums.h"

namespace fednf {

class Columns {
 public:
  explicit Columns(const Geometry& g)
      : g(g), map(g.h.out() * g.w.out()), weights(g.in * g.taps),
        together(std::clamp(TOGETHER / map, 1L, g.batch)), terms(weights) {
    for (long j = 0; j < weights; ++j) terms.add(j, j * row());
  }

  static bool fit(const Geometry& g) { return g.h.out() * g.w.out() <= MOST_PIXELS; }

  void forward(const float* images, const float* w, float* y) const {
    parts([&](const Part& part) {
      gather(part, images);
      weighted_sums(terms, w, weights, g.out, part.col, part.vectors, part.out, row());
      maps(part, [&](float* from, long to) { std::copy_n(from, map, y + to); });
    });
  }

  void backward(const float* dy, const float* w, float* dx) const {
    const Walk walk = in_line(g.out, weights, row());
    parts([&](const Part& part) {
      maps(part, [&](float* to, long from) { std::copy_n(dy + from, map, to); });
      outer_products(walk, weights, part.vectors, w, part.out, false, part.col, row());
      scatter(part, dx);
    });
  }

 private:
  static constexpr long MOST_PIXELS = 24, TOGETHER = 128;
  const Geometry g;
  const long map, weights, together;  // pixels of an output's map, rows of the matrix, images
  Terms terms;

  struct Part {  // some images, from `begin` on
    long begin, images, vectors;
    float *col, *out;
    Part(const Columns& of, long begin)
        : begin(begin), images(std::min(of.together, of.g.batch - begin)),
          vectors(padded(images * of.map) / LANES),
          col(memory(Use::COLUMNS, of.weights * of.row())),
          out(memory(Use::COLUMN_SUMS, of.g.out * of.row())) {}
  };

  long row() const { return padded(together * map); }

  template <class F>
  void parts(F f) const {
    for (long b = 0; b < g.batch; b += together) f(Part(*this, b));
  }

  // Calls f(where in the matrix, where in the images, how many) for pixels within the border, which
  // lie a stride apart in the images.
  template <class F>
  void runs(const Part& part, F f) const {
    float* row = part.col;
    for (long j = 0; j < weights; ++j, row += this->row()) {
      const long c = j / g.taps, s = j % g.taps / g.w.kernel - g.h.pad;
      const long t = j % g.w.kernel - g.w.pad, stride = g.w.stride;
      const long begin = t < 0 ? (stride - 1 - t) / stride : 0;
      const long end = std::min(g.w.out(), (g.w.in - t + stride - 1) / stride);
      if (begin >= end) continue;
      for (long b = 0; b < part.images; ++b)
        for (long n = 0; n < g.h.out(); ++n) {
          const long y = n * g.h.stride + s;
          if (y < 0 || y >= g.h.in) continue;
          f(row + (b * g.h.out() + n) * g.w.out() + begin,
            ((part.begin + b) * g.in + c) * g.h.in * g.w.in + y * g.w.in + begin * stride + t,
            end - begin);
        }
    }
  }

  void gather(const Part& part, const float* images) const {
    std::fill_n(part.col, weights * row(), 0.0f);
    const long stride = g.w.stride;
    runs(part, [&](float* to, long from, long n) {
      for (long i = 0; i < n; ++i) to[i] = images[from + i * stride];
    });
  }

  void scatter(const Part& part, float* images) const {
    std::fill_n(images + part.begin * g.inputs, part.images * g.inputs, 0.0f);
    const long stride = g.w.stride;
    runs(part, [&](const float* from, long to, long n) {
      for (long i = 0; i < n; ++i) images[to + i * stride] += from[i];
    });
  }

  // Calls f(where in the matrix of outputs, where in all maps).
  template <class F>
  void maps(const Part& part, F f) const {
    for (long b = 0; b < part.images; ++b)
      for (long o = 0; o < g.out; ++o)
        f(part.out + o * row() + b * map, ((part.begin + b) * g.out + o) * map);
  }
};

}  // namespace fednf
