// Sums of products over blocks that stay in registers: what convolutions come down to.

#pragma once

#include <vector>

#include "vectors.h"

namespace fednf {

// Blocks of 12 sums, with 3 operands and a factor, fill 16 registers; AVX-512 has 32.
constexpr int SUMS = LANES == 16 ? 24 : 12;

inline long padded(long floats) { return (floats + LANES - 1) / LANES * LANES; }

// Calls f(begin, size) for blocks as equal as can be of at most `most`.
template <class F>
inline void blocks(long total, long most, F f) {
  const long count = (total + most - 1) / most;
  for (long i = 0, begin = 0, size; i < count; ++i, begin += size)
    f(begin, size = total / count + (i < total % count));
}

struct Terms {  // of a sum: where the factor is in a row of weights, and where the vector
  std::vector<int> weight, vector;
  explicit Terms(long n) { weight.reserve(n), vector.reserve(n); }
  void add(long w, long v) { weight.push_back(int(w)), vector.push_back(int(v)); }
};

// out[r][p] = sum_j w[r][weight[j]] * x[vector[j] + p], for rows r of `out`, and so many vectors of p
void weighted_sums(const Terms& terms, const float* w, long w_row, long rows, const float* x,
                   long vectors, float* out, long out_row);

struct Walk {  // over what a sum is of: pixels, tiles or channels
  long images, rows, columns;
  long x_pixel, x_row, x_image, y_pixel, y_row, y_image;  // strides
};

// Over so many in a line.
inline Walk in_line(long count, long x_stride, long y_stride) {
  return {1, 1, count, x_stride, 0, 0, y_stride, 0, 0};
}

constexpr int PAIR = 2;

// to[r][v] = sum over pixels of x[r] * y[v], or is more by it, for `rows` numbers x and `vectors`
// vectors y of each pixel
void outer_products(const Walk& walk, long rows, long vectors, const float* x, const float* y,
                    bool add, float* to, long to_row);

}  // namespace fednf
