// Convolutions by tiles (tiling.h), by vectors over the tiles of a lane.

#pragma once

#include <algorithm>

#include "memory.h"
#include "pixels.h"
#include "tiling.h"
#include "turn.h"

namespace fednf {

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
      multiply(padded((end - row) * cut.columns) / LANES);
      give(row, end, results);
    });
  }

 private:
  const long from, to;
  const Axis height, width;
  const bool reverse;
  const Cut cut;
  const long tiles, pitch, plane, row;  // of a channel; of a row and a plane of pixels; of filters
  const long x_number, y_number, w_number;  // from one of the sixteen to the next
  float *const planes, *const x, *const y, *const filters, *const lines;

  Tiles(long batch, long from, long to, const Axis& height, const Axis& width, bool reverse)
      : from(from), to(to), height(height), width(width), reverse(reverse),
        cut(batch, from + to, height, width), tiles(cut.tiles()), pitch(cut.columns + 1),
        plane((cut.rows + 1) * pitch), row(padded(to)),
        x_number(Geometry::plane(from * tiles)), y_number(Geometry::plane(to * tiles)),
        w_number(Geometry::plane(from * row)), planes(zeros(Use::TILED, 4 * plane)),
        x(memory(Use::TILES, TILE * x_number)), y(memory(Use::TILE_SUMS, TILE * y_number)),
        filters(memory(Use::TILE_FILTERS, TILE * w_number)),
        lines(memory(Use::PLANE_SUMS, 4 * tiles)) {}

  // Of vectors that a row has room for; narrow ones are single numbers.
  static constexpr int narrower(int size) { return size > 4 ? size / 2 : 1; }

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
        const auto all = on_both_sides(Times<Vector>::filter, filter);
        for (long n = 0; n < TILE; ++n)
          store(filters + n * w_number + c * row + r, all[n / 4][n % 4]);
      }
  }

  // Bᵀ x B of rows of tiles. A map lies in four planes, its even and odd rows and columns, with
  // zeros around it.
  void take(long first, long end, const float* maps) const {
    cut.images(first, end, [&](long b, long top, long bottom, long at) {
      const long begin = std::max(0L, 2 * top - height.pad);
      const long rows = std::min(height.in, 2 * bottom + 2 - height.pad) - begin;
      for (long c = 0; c < from; ++c) {
        split(maps + ((b * from + c) * height.in + begin) * width.in, begin + height.pad, rows);
        spread(planes + top * pitch, bottom - top, x + c * tiles + at);
      }
    });
  }

  // Rows of a map, from a line of the planes on.
  template <int SIZE = LANES>
  void split(const float* map, long line, long rows) const {
    const long n = width.in, half = n / 2;
    if (SIZE > 1 && half < SIZE) return split<narrower(SIZE)>(map, line, rows);
    const bool odd = width.pad % 2;  // whether the first number of a row belongs to the odd ones
    float* const first = planes + width.pad / 2 + (odd ? plane : 0);
    float* const second = planes + (width.pad + 1) / 2 + (odd ? 0 : plane);
    for (; rows > 0; --rows, ++line, map += n) {
      const long at = (line & 1) * 2 * plane + (line >> 1) * pitch;
      if constexpr (SIZE > 1)
        for (long i = 0; i < half; i += SIZE) {
          constexpr auto numbers = std::make_index_sequence<SIZE>();
          const long j = std::min(i, half - SIZE);
          const auto a = load<SIZE>(map + 2 * j), b = load<SIZE>(map + 2 * j + SIZE);
          store<SIZE>(first + at + j, each_second<0>(a, b, numbers));
          store<SIZE>(second + at + j, each_second<1>(a, b, numbers));
        }
      else
        for (long i = 0; i < half; ++i) first[at + i] = map[2 * i], second[at + i] = map[2 * i + 1];
      if (n % 2) first[at + half] = map[n - 1];
    }
  }

  // Of rows of tiles, by vectors of which the last overlaps the one before it.
  template <int SIZE = LANES>
  void spread(const float* from, long rows, float* to) const {
    const long n = cut.columns;
    if (SIZE > 1 && n < SIZE) return spread<narrower(SIZE)>(from, rows, to);
    for (; rows > 0; --rows, from += pitch, to += n)
      for (long i = 0; i < n; i += SIZE) {
        const long t = std::min(i, n - SIZE);
        if constexpr (SIZE > 1)
          spread_tiles([&](long at) { return load<SIZE>(from + t + at); },
                       [&](long at, auto some) { store<SIZE>(to + t + at, some); });
        else
          spread_tiles([&](long at) { return from[t + at]; },
                       [&](long at, float one) { to[t + at] = one; });
      }
  }

  template <class Read, class Write>
  void spread_tiles(Read read, Write write) const {
    using T = decltype(read(0));
    Square<T, 4> tile;
    for (long i = 0; i < 4; ++i)
      for (long j = 0; j < 4; ++j)
        tile[i][j] = read((i % 2 * 2 + j % 2) * plane + i / 2 * pitch + j / 2);
    const auto all = on_both_sides(Times<T>::input, tile);
    for (long n = 0; n < TILE; ++n) write(n * x_number, all[n / 4][n % 4]);
  }

  // U . V, where channels are what is summed over.
  void multiply(long vectors) const {
    const Walk walk = in_line(from, row, tiles);
    for (long n = 0; n < TILE; ++n)
      outer_products(walk, to, vectors, filters + n * w_number, x + n * x_number, false,
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
        const auto pixels = on_both_sides(Times<Vector>::output, tile);
        for (long i = 0; i < 2; ++i) {
          const auto [left, right] = pixels[i];
          float* const line = lines + 2 * (i * tiles + t);
          store(line, by_turns<0>(left, right, numbers));
          store(line + LANES, by_turns<LANES / 2>(left, right, numbers));
        }
      }
      cut.images(first, end, [&](long b, long top, long bottom, long at) {
        float* const map = results + (b * to + o) * height.out() * width.out();
        for (long i = 2 * top, last = std::min(2 * bottom, height.out()); i < last; ++i)
          copy(map + i * width.out(),
               lines + 2 * ((i & 1) * tiles + at) + (i / 2 - top) * line_size, width.out());
      });
    }
  }
};

}  // namespace fednf
