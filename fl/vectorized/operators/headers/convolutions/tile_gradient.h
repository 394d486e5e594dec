// The gradient of a convolution's weights by tiles (tiling.h), by vectors over the channels of dy:
// all channels of a pixel lie next to each other.

#pragma once

#include <algorithm>

#include "memory.h"
#include "tiling.h"
#include "turn.h"
#include "weights.h"

namespace fednf {

class TileGradient {
 public:
  explicit TileGradient(const Geometry& g)
      : g(g), cut(g.batch, padded(g.in) + padded(g.out), g.h, g.w), tiles(cut.tiles()),
        x_row(padded(g.in)), y_row(padded(g.out)), x_wide(2 * cut.columns + 2),
        y_wide(2 * cut.columns), x_number(Geometry::plane(tiles * x_row)),
        y_number(Geometry::plane(tiles * y_row)), w_number(Geometry::plane(g.in * y_row)),
        x(zeros(Use::TURNED, (2 * cut.rows + 2) * x_wide * x_row + 2 * cut.rows * y_wide * y_row)),
        dy(x + (2 * cut.rows + 2) * x_wide * x_row),
        x_tiles(memory(Use::TILES_TURNED, TILE * (x_number + y_number))),
        y_tiles(x_tiles + TILE * x_number), sums(memory(Use::TILE_WEIGHTS, TILE * w_number)),
        turned(memory(Use::GRADIENT, 9 * g.in * y_row)) {}

  void operator()(const float* dy, const float* images, float* dw) const {
    cut.parts([&](long row, long end) {
      cut.images(row, end, [&](long b, long top, long bottom, long at) {
        take(images + b * g.inputs, dy + b * g.outputs, top, bottom, at);
      });
      multiply((end - row) * cut.columns, row > 0);
    });
    give();
    write_turned(g, turned, y_row, dw);
  }

 private:
  const Geometry g;
  const Cut cut;
  const long tiles, x_row, y_row, x_wide, y_wide;  // of the channels of a pixel; of a row of pixels
  const long x_number, y_number, w_number;         // from one of the sixteen to the next
  float *const x, *const dy, *const x_tiles, *const y_tiles, *const sums, *const turned;

  // Bᵀ x B and A dy Aᵀ of some rows of tiles of an image.
  void take(const float* image, const float* grad, long top, long bottom, long at) const {
    const long begin = std::max(0L, 2 * top - g.h.pad);
    for (long i = begin; i < std::min(g.h.in, 2 * bottom + 2 - g.h.pad); ++i)
      turn(image + i * g.w.in, g.h.in * g.w.in, g.in, g.w.in, [&](long j) {
        return x + ((i + g.h.pad) * x_wide + j + g.w.pad) * x_row;
      });
    for (long i = 2 * top; i < std::min(g.h.out(), 2 * bottom); ++i)
      turn(grad + i * g.w.out(), g.h.out() * g.w.out(), g.out, g.w.out(),
           [&](long j) { return dy + (i * y_wide + j) * y_row; });
    for (long r = top; r < bottom; ++r)
      for (long t = 0; t < cut.columns; ++t, ++at) {
        spread<4>(Times<Vector>::input, x + (2 * r * x_wide + 2 * t) * x_row, x_wide * x_row, x_row,
                  x_tiles + at * x_row, x_number);
        spread<2>(Times<Vector>::gradient, dy + (2 * r * y_wide + 2 * t) * y_row, y_wide * y_row,
                  y_row, y_tiles + at * y_row, y_number);
      }
  }

  template <size_t N>
  static void spread(std::array<Vector, 4> (*f)(const std::array<Vector, N>&), const float* from,
                     long line, long row, float* to, long number) {
    for (long c = 0; c < row; c += LANES) {
      Square<Vector, N> tile;
      for (size_t i = 0; i < N; ++i)
        for (size_t j = 0; j < N; ++j) tile[i][j] = load(from + i * line + j * row + c);
      const auto all = on_both_sides(f, tile);
      for (long n = 0; n < TILE; ++n) store(to + n * number + c, all[n / 4][n % 4]);
    }
  }

  void multiply(long count, bool add) const {
    const Walk walk = in_line(count, x_row, y_row);
    for (long n = 0; n < TILE; ++n)
      outer_products(walk, g.in, y_row / LANES, x_tiles + n * x_number, y_tiles + n * y_number, add,
                     sums + n * w_number, y_row);
  }

  void give() const {
    for (long c = 0; c < g.in; ++c)
      for (long o = 0; o < y_row; o += LANES) {
        Square<Vector, 4> tile;
        for (long n = 0; n < TILE; ++n)
          tile[n / 4][n % 4] = load(sums + n * w_number + c * y_row + o);
        const auto filter = on_both_sides(Times<Vector>::weights, tile);
        for (long j = 0; j < 9; ++j)
          store(turned + (j * g.in + c) * y_row + o, filter[j / 3][j % 3]);
      }
  }
};

}  // namespace fednf
