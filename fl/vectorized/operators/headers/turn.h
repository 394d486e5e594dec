// Matrices turned: rows of floats that become columns.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace fednf {

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

}  // namespace fednf
