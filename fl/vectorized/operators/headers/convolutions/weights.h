// The gradient of a convolution's weights: dw[o][j] = sum_p dy[o][p] x_j[p].
//
// Here maps are turned: all channels of a pixel lie next to each other, those of x with zeros around
// the image, and those of dy by one vector or two. Then a pixel gives the outer product of a run of
// numbers of x and of these vectors: there are no sums within vectors, and no zeros between the rows
// of dy. A run is the channels of one tap, over the pixels for which it meets the image, or where
// that saves little, with a stride of 1, those of all taps in a row of the filter.

#pragma once

#include <algorithm>

#include "geometry.h"
#include "memory.h"
#include "sums.h"
#include "turn.h"

namespace fednf {

// Filters (O, C, taps) from (taps, C, O), whose rows are padded.
inline void write_turned(const Geometry& g, const float* turned, long row, float* dw) {
  const long weights = g.in * g.taps;
  if (g.taps == 1) return turn(turned, row, g.in, g.out, [&](long o) { return dw + o * g.in; });
  for (long c = 0; c < g.in; ++c)
    turn(turned + c * row, g.in * row, g.taps, g.out,
         [&](long o) { return dw + o * weights + c * g.taps; });
}

class WeightGradient {
 public:
  // Small maps are summed over together, large ones while they are in the cache.
  explicit WeightGradient(const Geometry& g)
      : g(g), map(g.h.out() * g.w.out()), plane((g.length + g.reach) * g.in),
        x_image(padded(g.h.phases() * g.w.phases() * plane)), row(padded(g.out)),
        y_image(row * map),
        at_once(g.w.stride == 2 || (g.w.out() < 8 && g.in >= SUMS / PAIR) ? 1 : g.w.kernel),
        together(std::clamp(1024 / g.length, 1L, g.batch)),
        x(zeros(Use::TURNED, together * (x_image + y_image))), y(x + together * x_image),
        turned(memory(Use::GRADIENT, g.taps * g.in * row + g.in * g.w.in)),
        unread(turned + g.taps * g.in * row) {}

  // The sum over all images of a lane.
  void operator()(const float* dy, const float* images, float* dw) const {
    for (long b = 0; b < g.batch; b += together) {
      const long count = std::min(together, g.batch - b);
      for (long i = 0; i < count; ++i)
        take(i, images + (b + i) * g.inputs, dy + (b + i) * g.outputs);
      sum(count, b > 0);
    }
    write_turned(g, turned, row, dw);
  }

 private:
  const Geometry g;
  const long map, plane, x_image, row, y_image;  // pixels; floats
  const long at_once, together;                  // taps; images
  float *const x, *const y, *const turned, *const unread;

  // Takes the i-th image of a sum, and the gradient of its output.
  void take(long i, const float* image, const float* dy) const {
    for (long h = g.h.pad; h < g.h.in + g.h.pad; ++h, image += g.w.in) {
      float* const even = line(x + i * x_image, h, 0);
      float* const odd = line(x + i * x_image, h, 1);
      turn(image, g.h.in * g.w.in, g.in, g.w.in, [=, this](long w) {
        w += g.w.pad;
        return g.w.stride == 1 ? even + w * g.in : (w % 2 ? odd : even) + w / 2 * g.in;
      });
    }
    each_block([&](long first, long vectors) {
      float* to = y + i * y_image + first * map;
      turn(dy + first * map, map, std::min(vectors * LANES, g.out - first), map,
           [&](long p) { return to + p * vectors * LANES; });
    });
  }

  void sum(long images, bool add) const {
    each_block([&](long first, long vectors) {
      for (long s = 0; s < g.h.kernel; ++s)
        for (long t = 0; t < g.w.kernel; t += at_once) sum(images, s, t, first, vectors, add);
    });
  }

  // For tap t, or all taps, of the filter's row s: over the pixels that it meets.
  void sum(long images, long s, long t, long first, long vectors, bool add) const {
    const long n = g.h.first(s), m = at_once > 1 ? 0 : g.w.first(t);
    const long rows = g.h.end(s) - n, columns = (at_once > 1 ? g.w.out() : g.w.end(t)) - m;
    const long phase = s % g.h.stride * g.w.phases() + t % g.w.stride;
    const long shift = (s / g.h.stride + n) * g.pitch + t / g.w.stride + m;
    const long y_row = g.w.out() * vectors * LANES;
    const long met = columns > 0 ? rows : 0;
    const Walk walk{images, met, columns, g.in, g.pitch * g.in, x_image, vectors * LANES,
                    y_row, y_image};
    outer_products(walk, at_once * g.in, vectors, x + phase * plane + shift * g.in,
                   y + first * map + n * y_row + m * vectors * LANES, add,
                   turned + (s * g.w.kernel + t) * g.in * row + first, row);
  }

  // Where a row of pixels, or with a stride of 2 the even or the odd ones, begins; those of phases
  // that no tap reads all go to one place.
  float* line(float* image, long h, long parity) const {
    const long i = h % g.h.stride, j = parity % g.w.stride;
    if (i >= g.h.phases() || j >= g.w.phases()) return unread;
    return image + (i * g.w.phases() + j) * plane + h / g.h.stride * g.pitch * g.in;
  }

  // Calls f(first channel, vectors) for blocks of one vector or two of the outputs' channels.
  template <class F>
  void each_block(F f) const {
    blocks(row / LANES, PAIR, [&](long v, long vectors) { f(v * LANES, vectors); });
  }
};

}  // namespace fednf
