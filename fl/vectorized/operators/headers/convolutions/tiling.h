// Convolutions by filters of 3 x 3 with 16 products for each 2 x 2 pixels of a map, not 36.
//
// Of maps that are cut into tiles of 4 x 4 pixels, which overlap by two, and of filters w this is
// Winograd's F(2x2, 3x3) (arXiv 1509.09308). By three matrices, of which `Times` knows five uses:
//
//   forward    y = Aᵀ [U . V] A        U = G w Gᵀ,  V = Bᵀ x B
//   backward  dx is the same of dy, by filters that are turned round
//             dw = Gᵀ [V . (A dy Aᵀ)] G
//
// With all channels and tiles, the sixteen numbers of [ . ] are sixteen products of matrices.

#pragma once

#include <algorithm>
#include <array>

#include "geometry.h"
#include "sums.h"

namespace fednf {

template <class T, size_t N>
using Square = std::array<std::array<T, N>, N>;

// The matrices, or their transposes, times some numbers, or vectors.
template <class T>
struct Times {
  static std::array<T, 4> input(const std::array<T, 4>& x) {  // Bᵀ x
    return {x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]};
  }
  static std::array<T, 4> filter(const std::array<T, 3>& w) {  // G w
    const T outer = (w[0] + w[2]) * 0.5f, middle = w[1] * 0.5f;
    return {w[0], outer + middle, outer - middle, w[2]};
  }
  static std::array<T, 2> output(const std::array<T, 4>& m) {  // Aᵀ m
    return {m[0] + m[1] + m[2], m[1] - m[2] - m[3]};
  }
  static std::array<T, 4> gradient(const std::array<T, 2>& dy) {  // A dy
    return {dy[0], dy[0] + dy[1], dy[0] - dy[1], -dy[1]};
  }
  static std::array<T, 3> weights(const std::array<T, 4>& m) {  // Gᵀ m
    const T sum = (m[1] + m[2]) * 0.5f;
    return {m[0] + sum, (m[1] - m[2]) * 0.5f, sum + m[3]};
  }
};

// M x Mᵀ of a matrix that `f` multiplies by.
template <class T, size_t N, size_t TO>
inline Square<T, TO> on_both_sides(std::array<T, TO> (*f)(const std::array<T, N>&),
                                   const Square<T, N>& x) {
  std::array<std::array<T, TO>, N> rows;
  for (size_t i = 0; i < N; ++i) rows[i] = f(x[i]);
  Square<T, TO> all;
  for (size_t j = 0; j < TO; ++j) {
    std::array<T, N> column;
    for (size_t i = 0; i < N; ++i) column[i] = rows[i][j];
    const std::array<T, TO> found = f(column);
    for (size_t i = 0; i < TO; ++i) all[i][j] = found[i];
  }
  return all;
}

constexpr long TILE = 16;  // products

// Whether this is the way to go, see `faster` in convolutions.py. With fewer tiles, turning the
// filters takes longer than the products save; smaller maps leave much of their tiles empty: one of
// 3 x 3 takes 64 products, where 49 taps meet it.
inline bool in_tiles(const Geometry& g) {
  const long height = g.h.out(), width = g.w.out();
  return g.h.kernel == 3 && g.w.kernel == 3 && g.w.stride == 1 && std::min(g.in, g.out) >= 8 &&
         std::min(height, width) >= 4 && g.batch * ((height + 1) / 2) * ((width + 1) / 2) >= 16;
}

// How the maps of a lane are cut, a row of tiles after the other, and as many rows at a time as
// leave what is computed of them in the cache.
struct Cut {
  long batch, rows, columns, together;  // images; tiles of one; rows of tiles

  Cut(long batch, long channels, const Axis& h, const Axis& w)
      : batch(batch), rows((h.out() + 1) / 2), columns((w.out() + 1) / 2),
        together(std::clamp(MOST / (TILE * channels * columns), 1L, batch * rows)) {}

  long tiles() const { return padded(together * columns); }

  // Calls f(first row, end) of all rows of tiles, for as many as are taken together.
  template <class F>
  void parts(F f) const {
    for (long row = 0; row < batch * rows; row += together)
      f(row, std::min(batch * rows, row + together));
  }

  // Calls f(image, its first row, end, place of the first tile) of the images in a part.
  template <class F>
  void images(long row, long end, F f) const {
    for (long at = row; at < end;) {
      const long b = at / rows, last = std::min(end, (b + 1) * rows);
      f(b, at - b * rows, last - b * rows, (at - row) * columns);
      at = last;
    }
  }

 private:
  static constexpr long MOST = 131072;  // floats of what is made of both maps, half a megabyte
};

}  // namespace fednf
