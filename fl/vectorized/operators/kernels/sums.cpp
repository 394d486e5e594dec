// The sums themselves, one function for every size of block. This file is compiled by itself, in
// parallel to the others.

#include "sums.h"

#include <algorithm>
#include <array>
#include <utility>

namespace fednf {
namespace {

// out[r][p] = sum_j w[r][weight[j]] * x[vector[j] + p] for V vectors of p
template <int R, int V>
void weighted_sum(const Terms& terms, const float* __restrict w, long w_row,
                  const float* __restrict x, float* __restrict out, long out_row) {
  Vector total[R][V] = {};
  const int *weight = terms.weight.data(), *vector = terms.vector.data();
  const int* const end = weight + terms.weight.size();
  do {
    const float *factors = w + *weight++, *from = x + *vector++;
    Vector operand[V];
    for (int v = 0; v < V; ++v) operand[v] = load(from + v * LANES);
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r) {
      const float factor = factors[r * w_row];
      for (int v = 0; v < V; ++v) total[r][v] += operand[v] * factor;
    }
  } while (weight < end);
#pragma GCC unroll 24
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(out + r * out_row + v * LANES, total[r][v]);
}

// to[r][v] = sum over pixels of x[r] * y[v], or is more by it, for V vectors, and then for the next
// V, as often as `count` says
template <int R, int V>
void outer_product(const Walk& walk, long count, const float* __restrict all_x,
                   const float* __restrict all_y, bool add, float* __restrict to, long to_row) {
  const long columns = walk.columns, x_pixel = walk.x_pixel, y_pixel = walk.y_pixel;
  for (; count > 0; --count, all_y += V * LANES, to += V * LANES) {
    Vector total[R][V] = {};
    const float *x = all_x, *y = all_y;
    for (long b = 0; b < walk.images; ++b, x += walk.x_image, y += walk.y_image) {
      const float *x_row = x, *y_row = y;
      for (long n = 0; n < walk.rows; ++n, x_row += walk.x_row, y_row += walk.y_row) {
        const float *factors = x_row, *from = y_row;
        long m = columns;
        do {
          Vector operand[V];
          for (int v = 0; v < V; ++v) operand[v] = load(from + v * LANES);
#pragma GCC unroll 24
          for (int r = 0; r < R; ++r) {
            const float factor = factors[r];
            for (int v = 0; v < V; ++v) total[r][v] += operand[v] * factor;
          }
          factors += x_pixel, from += y_pixel;
        } while (--m > 0);
      }
    }
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        float* at = to + r * to_row + v * LANES;
        store(at, add ? load(at) + total[r][v] : total[r][v]);
      }
  }
}

// Every size of block, as tables of functions.
constexpr int WIDE = 3;  // vectors
template <int V, int... I>
constexpr auto weighted_sums(std::integer_sequence<int, I...>) {
  return std::array{&weighted_sum<I + 1, V>...};
}
template <int V, int... I>
constexpr auto outer_products(std::integer_sequence<int, I...>) {
  return std::array{&outer_product<I + 1, V>...};
}
constexpr auto ONE_VECTOR = weighted_sums<1>(std::make_integer_sequence<int, SUMS>());
constexpr auto TWO_VECTORS = weighted_sums<2>(std::make_integer_sequence<int, SUMS / 2>());
constexpr auto THREE_VECTORS = weighted_sums<3>(std::make_integer_sequence<int, SUMS / 3>());
constexpr auto OF_ONE = outer_products<1>(std::make_integer_sequence<int, SUMS>());
constexpr auto OF_TWO = outer_products<2>(std::make_integer_sequence<int, SUMS / 2>());

}  // namespace

void weighted_sums(const Terms& terms, const float* w, long w_row, long rows, const float* x,
                   long vectors, float* out, long out_row) {
  if (terms.weight.empty()) {
    for (long r = 0; r < rows; ++r) std::fill_n(out + r * out_row, vectors * LANES, 0.0f);
    return;
  }
  const decltype(&weighted_sum<1, 1>) * sums[] = {ONE_VECTOR.data(), TWO_VECTORS.data(),
                                                 THREE_VECTORS.data()};
  blocks(vectors, WIDE, [&](long v, long wide) {
    blocks(rows, SUMS / wide, [&](long r, long size) {
      sums[wide - 1][size - 1](terms, w + r * w_row, w_row, x + v * LANES,
                               out + r * out_row + v * LANES, out_row);
    });
  });
}

void outer_products(const Walk& walk, long rows, long vectors, const float* x, const float* y,
                    bool add, float* to, long to_row) {
  const long pairs = vectors / PAIR, paired = pairs * PAIR * LANES;
  const auto some = [&](const auto& sums, int wide, long count, long v) {
    blocks(rows, SUMS / wide, [&](long r, long size) {
      sums[size - 1](walk, count, x + r, y + v, add, to + r * to_row + v, to_row);
    });
  };
  if (pairs) some(OF_TWO, PAIR, pairs, 0);
  if (vectors % PAIR) some(OF_ONE, 1, 1, paired);
}

}  // namespace fednf
