// Convolutions by tiles (tiling.h), by vectors over the tiles of a lane.

#pragma once

#include <algorithm>

#include "memory.h"
#include "pixels.h"
#include "tiling.h"
#include "turn.h"

namespace fednf {

// From[2 i] and from[2 i + 1] of n numbers.
template <int SIZE = LANES>
inline void split(const float* from, long n, float* even, float* odd) {
  if constexpr (SIZE >= 4) {
    if (n < 2 * SIZE) return split<SIZE / 2>(from, n, even, odd);
    for (long i = 0; i < n / 2; i += SIZE) {
      const long j = std::min(i, n / 2 - SIZE);
      const auto a = load<SIZE>(from + 2 * j), b = load<SIZE>(from + 2 * j + SIZE);
      store<SIZE>(even + j, each_second<0>(a, b, std::make_index_sequence<SIZE>()));
      store<SIZE>(odd + j, each_second<1>(a, b, std::make_index_sequence<SIZE>()));
    }
    if (n % 2) even[n / 2] = from[n - 1];
  } else {
    for (long i = 0; i < n; ++i) (i % 2 ? odd : even)[i / 2] = from[i];
  }
}

// Of maps with `from` channels, those with `to`, by vectors over tiles.
class Tiles {
 public:
  static Tiles forward(const Geometry& g) { return {g.batch, g.in, g.out, g.h, g.w, false}; }
  static Tiles backward(const Geometry& g) {
    return {g.batch, g.out, g.in, reversed(g.h), reversed(g.w), true};
  }

  void operator()(const float* maps, const float* w, float* results) const {
    turn_filters(w);
    cut.parts([&](long row, long end) {
      take(row, end, maps);
      multiply();
      give(row, end, results);
    });
  }

 private:
  const long from, to;
  const Axis height, width;
  const bool reverse;
  const Cut cut;
  const long tiles, pitch, plane, row;       // of a channel; of a row and a plane of pixels; of filters
  const long x_number, y_number, w_number;   // from one of the sixteen to the next
  float *const planes, *const x, *const y, *const filters, *const lines;

  Tiles(long batch, long from, long to, const Axis& height, const Axis& width, bool reverse)
      : from(from), to(to), height(height), width(width), reverse(reverse),
        cut(batch, from + to, height, width),
        tiles(cut.tiles()), pitch(cut.columns + 1), plane((cut.rows + 1) * pitch), row(padded(to)),
        x_number(Geometry::plane(from * tiles)), y_number(Geometry::plane(to * tiles)),
        w_number(Geometry::plane(from * row)), planes(zeros(Use::TILED, 4 * plane)),
        x(memory(Use::TILES, TILE * x_number)), y(memory(Use::TILE_SUMS, TILE * y_number)),
        filters(memory(Use::TILE_FILTERS, TILE * w_number)),
        lines(memory(Use::PLANE_SUMS, 4 * tiles)) {}

  static Axis reversed(const Axis& axis) {
    return {axis.out(), axis.kernel, 1, axis.kernel - 1 - axis.pad};
  }

  // G w Gᵀ, with all filters of a channel next to each other.
  void turn_filters(const float* w) const {
    float* const turned = memory(Use::TRANSPOSED, 9 * from * row);
    const auto at = [&](long j) { return turned + j * row; };
    if (reverse)
      for (long c = 0; c < from; ++c)
        turn(w + c * to * 9, 9, to, 9, [&](long j) { return at(c * 9 + 8 - j); });
    else turn(w, from * 9, to, from * 9, at);
    for (long c = 0; c < from; ++c)
      for (long r = 0; r < row; r += LANES) {
        Square<Vector, 3> filter;
        for (long j = 0; j < 9; ++j) filter[j / 3][j % 3] = load(at(c * 9 + j) + r);
        const auto all = both(Of<Vector>::filter, filter);
        for (long n = 0; n < TILE; ++n)
          store(filters + n * w_number + c * row + r, all[n / 4][n % 4]);
      }
  }

  // Bᵀ x B of rows of tiles. A map lies in four planes, its even and odd rows and columns, with zeros
  // around it.
  void take(long first, long end, const float* maps) const {
    cut.images(first, end, [&](long b, long top, long bottom, long at) {
      for (long c = 0; c < from; ++c) {
        const float* map = maps + (b * from + c) * height.in * width.in;
        const long begin = std::max(0L, 2 * top - height.pad);
        for (long i = begin; i < std::min(height.in, 2 * bottom + 2 - height.pad); ++i) {
          const long line = i + height.pad;
          float* const even = planes + line % 2 * 2 * plane + line / 2 * pitch;
          float* const odd = even + plane;
          if (width.pad % 2) split(map + i * width.in, width.in, odd + width.pad / 2, even + (width.pad + 1) / 2);
          else split(map + i * width.in, width.in, even + width.pad / 2, odd + width.pad / 2);
        }
        float* to = x + c * tiles + at;
        for (long r = top; r < bottom; ++r, to += cut.columns) spread(planes + r * pitch, to);
      }
    });
  }

  // Of one row of tiles, by vectors of which the last overlaps the one before it.
  template <int SIZE = LANES>
  void spread(const float* from, float* to) const {
    const long n = cut.columns;
    if constexpr (SIZE >= 4) {
      if (n < SIZE) return spread<SIZE / 2>(from, to);
      for (long i = 0; i < n; i += SIZE) {
        const long t = std::min(i, n - SIZE);
        spread(t, [&](long at) { return load<SIZE>(from + at); },
               [&](long at, auto some) { store<SIZE>(to + at, some); });
      }
    } else {
      for (long t = 0; t < n; ++t)
        spread(t, [&](long at) { return from[at]; }, [&](long at, float one) { to[at] = one; });
    }
  }

  template <class Read, class Write>
  void spread(long t, Read read, Write write) const {
    using T = decltype(read(0));
    Square<T, 4> tile;
    for (long i = 0; i < 4; ++i)
      for (long j = 0; j < 4; ++j)
        tile[i][j] = read((i % 2 * 2 + j % 2) * plane + i / 2 * pitch + t + j / 2);
    const auto all = both(Of<T>::input, tile);
    for (long n = 0; n < TILE; ++n) write(n * x_number + t, all[n / 4][n % 4]);
  }

  void multiply() const {
    const Walk walk{1, 1, from, row, 0, 0, tiles, 0, 0};
    for (long n = 0; n < TILE; ++n)
      outer_products(walk, to, tiles / LANES, filters + n * w_number, x + n * x_number, false,
                     y + n * y_number, tiles);
  }

  // Aᵀ y A: two rows of pixels for each row of tiles.
  void give(long first, long end, float* results) const {
    constexpr auto numbers = std::make_index_sequence<LANES>();
    const long used = padded((end - first) * cut.columns), line_size = 2 * cut.columns;
    for (long o = 0; o < to; ++o) {
      const float* const sums = y + o * tiles;
      for (long t = 0; t < used; t += LANES) {
        Square<Vector, 4> tile;
        for (long n = 0; n < TILE; ++n) tile[n / 4][n % 4] = load(sums + n * y_number + t);
        const auto pixels = both(Of<Vector>::output, tile);
        for (long i = 0; i < 2; ++i) {
          const auto [left, right] = pixels[i];
          float* const line = lines + 2 * (i * tiles + t);
          store(line, by_turns<0>(left, right, numbers));
          store(line + LANES, by_turns<LANES / 2>(left, right, numbers));
        }
      }
      cut.images(first, end, [&](long b, long top, long bottom, long at) {
        float* const map = results + (b * to + o) * height.out() * width.out();
        for (long i = 2 * top; i < std::min(2 * bottom, height.out()); ++i)
          copy(map + i * width.out(), lines + 2 * (i % 2 * tiles + at) + (i / 2 - top) * line_size, width.out());
      });
    }
  }
};

}  // namespace fednf
