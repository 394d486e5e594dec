// The gradient of a convolution's weights: dw[o][j] = sum_p dy[o][p] x_j[p].
//
// Here maps are turned: all channels of a pixel lie next to each other, those of x with zeros around
// the image, and those of dy by one vector or two. Then a pixel gives the outer product of a run of
// numbers of x, which for a stride of 1 are the channels of all taps in a row of the filter, and of
// these vectors: there are no sums within vectors, and no zeros between the rows of dy.

#pragma once

#include <algorithm>

#include "geometry.h"
#include "vectors.h"

namespace {

using Quad = Floats<4>::Vector;

// The i-th four numbers of a vector.
template <int SIZE>
inline Quad quad(typename Floats<SIZE>::Vector v, int i) {
  Quad parts[SIZE / 4];
  __builtin_memcpy(parts, &v, sizeof v);
  return parts[i];
}

// to[column][row, ...] = from[row, ...][column] of four rows and SIZE columns
template <int SIZE>
inline void turn_four(const float* from, long from_row, float* const* to, long row) {
  constexpr auto all = std::make_index_sequence<SIZE>();
  const auto a = load<SIZE>(from), b = load<SIZE>(from + from_row);
  const auto c = load<SIZE>(from + 2 * from_row), d = load<SIZE>(from + 3 * from_row);
  const auto ab = mix<0, 4, 1, 5>(a, b, all), AB = mix<2, 6, 3, 7>(a, b, all);
  const auto cd = mix<0, 4, 1, 5>(c, d, all), CD = mix<2, 6, 3, 7>(c, d, all);
  const typename Floats<SIZE>::Vector columns[] = {
      mix<0, 1, 4, 5>(ab, cd, all), mix<2, 3, 6, 7>(ab, cd, all), mix<0, 1, 4, 5>(AB, CD, all),
      mix<2, 3, 6, 7>(AB, CD, all)};
#pragma GCC unroll 16
  for (int i = 0; i < SIZE; ++i) store<4>(to[i] + row, quad<SIZE>(columns[i % 4], i / 4));
}

// at(column)[row] = from[row][column]; the last blocks overlap those before them.
template <int SIZE = LANES, class At>
inline void turn(const float* from, long from_row, long rows, long columns, At at) {
  if (rows < 4 || columns < 4) {
    for (long c = 0; c < columns; ++c) {
      float* to = at(c);
      for (long r = 0; r < rows; ++r) to[r] = from[r * from_row + c];
    }
  } else if (SIZE > 4 && columns < SIZE) {
    turn<std::max(SIZE / 2, 4)>(from, from_row, rows, columns, at);
  } else {
    for (long c = 0; c < columns; c += SIZE) {  // a column is written while it is in the cache
      const long j = std::min(c, columns - SIZE);
      float* to[SIZE];
      for (int i = 0; i < SIZE; ++i) to[i] = at(j + i);
      for (long r = 0; r < rows; r += 4) {
        const long i = std::min(r, rows - 4);
        turn_four<SIZE>(from + i * from_row + j, from_row, to, i);
      }
    }
  }
}

class WeightGradient {
 public:
  explicit WeightGradient(const Geometry& g)
      : g(g), map(g.h.out() * g.w.out()), plane((g.length + g.reach) * g.in),
        x_image(padded(g.h.phases() * g.w.phases() * plane)), row(padded(g.out)), y_image(row * map) {}

  // In floats: for so many images at a time, which have to be 0 at first, and more besides.
  long zeros(long images) const { return images * (x_image + y_image); }
  long more() const { return g.taps * g.in * row + g.in * g.w.in; }

  // Says where these are.
  void use(float* zeros, long images, float* more) {
    x = zeros, y = x + images * x_image, turned = more, unread = more + g.taps * g.in * row;
  }

  // Takes the i-th image of a sum, and the gradient of its output.
  void take(long i, const float* image, const float* dy) {
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
    const Pixels pixels{images, g.h.out(), g.w.out(), g.in, g.pitch * g.in, x_image, y_image};
    const long at_once = g.w.stride == 1 ? g.w.kernel : 1;
    each_block([&](long first, long vectors) {
      for (long s = 0; s < g.h.kernel; ++s)
        for (long t = 0; t < g.w.kernel; t += at_once) {
          const long phase = s % g.h.stride * g.w.phases() + t % g.w.stride;
          const long shift = s / g.h.stride * g.pitch + t / g.w.stride;
          outer_products(pixels, at_once * g.in, vectors, x + phase * plane + shift * g.in,
                         y + first * map, add,
                         turned + (s * g.w.kernel + t) * g.in * row + first, row);
        }
    });
  }

  void write(float* dw) const {
    const long weights = g.in * g.taps;
    if (g.taps == 1) return turn(turned, row, g.in, g.out, [&](long o) { return dw + o * g.in; });
    for (long c = 0; c < g.in; ++c)
      turn(turned + c * row, g.in * row, g.taps, g.out,
           [&](long o) { return dw + o * weights + c * g.taps; });
  }

 private:
  const Geometry& g;
  const long map, plane, x_image, row, y_image;  // pixels, and floats
  float *x, *y, *turned, *unread;

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

}  // namespace
