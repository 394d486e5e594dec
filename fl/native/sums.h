// Sums of products over blocks that stay in registers: what convolutions come down to.

#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "vectors.h"

namespace {

// Blocks of 12 sums, with 3 operands and a factor, fill 16 registers; AVX-512 has 32.
constexpr int SUMS = LANES == 16 ? 24 : 12;
using Quad = Floats<4>::Vector;

// The four sums over the elements of a, b, c and d.
inline Quad sums(Vector a, Vector b, Vector c, Vector d) {
  constexpr auto all = std::make_index_sequence<LANES>();
  const Vector ab = mix<0, 4, 1, 5>(a, b, all) + mix<2, 6, 3, 7>(a, b, all);
  const Vector cd = mix<0, 4, 1, 5>(c, d, all) + mix<2, 6, 3, 7>(c, d, all);
  const Vector abcd = mix<0, 1, 4, 5>(ab, cd, all) + mix<2, 3, 6, 7>(ab, cd, all);
  Quad total = {};
  for (int i = 0; i < LANES; i += 4) total += Quad{abcd[i], abcd[i + 1], abcd[i + 2], abcd[i + 3]};
  return total;
}

long padded(long floats) { return (floats + LANES - 1) / LANES * LANES; }

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
    for (int r = 0; r < R; ++r) {
      const float factor = factors[r * w_row];
      for (int v = 0; v < V; ++v) total[r][v] += operand[v] * factor;
    }
  } while (weight < end);
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(out + r * out_row + v * LANES, total[r][v]);
}

struct Maps {  // what a sum over pixels goes over
  long images, length;  // length in floats, as they are padded
  const float *dy, *x;
  long dy_row, dy_image, x_image;  // strides
};

// dw[r][j] = sum over images and p of dy[r][p] * x[vector[j] + p], or is more by it
template <int R, int V>
void inner_product(const Maps& maps, long row, const int* vector, bool add, float* __restrict dw,
                   long dw_row) {
  Vector total[R][V] = {};
  const long end = maps.length, dy_row = maps.dy_row;
  long images = maps.images;
  const float* __restrict dy = maps.dy + row * dy_row;
  const float* from[V];
  for (int v = 0; v < V; ++v) from[v] = maps.x + vector[v];
  do {
    long p = 0;
    do {
      Vector operand[R];
      for (int r = 0; r < R; ++r) operand[r] = load(dy + r * dy_row + p);
      for (int v = 0; v < V; ++v) {
        const Vector factor = load(from[v] + p);
        for (int r = 0; r < R; ++r) total[r][v] += operand[r] * factor;
      }
    } while ((p += LANES) < end);
    dy += maps.dy_image;
    for (int v = 0; v < V; ++v) from[v] += maps.x_image;
  } while (--images > 0);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const auto column = [&](int v) { return v < V ? total[r][v] : Vector{}; };
    const Quad four = sums(column(0), column(1), column(2), column(3));
    float* to = dw + r * dw_row;
    for (int v = 0; v < V; ++v) to[v] = add ? to[v] + four[v] : four[v];
  }
}

// Every size of block, as tables of functions.
constexpr int WIDE = 3, FOUR = 4;
template <int V, int... I>
constexpr auto weighted_sums(std::integer_sequence<int, I...>) {
  return std::array{&weighted_sum<I + 1, V>...};
}
template <int... I>
constexpr auto inner_products(std::integer_sequence<int, I...>) {
  return std::array{&inner_product<I / FOUR + 1, I % FOUR + 1>...};
}
constexpr auto ONE_VECTOR = weighted_sums<1>(std::make_integer_sequence<int, SUMS>());
constexpr auto TWO_VECTORS = weighted_sums<2>(std::make_integer_sequence<int, SUMS / 2>());
constexpr auto THREE_VECTORS = weighted_sums<3>(std::make_integer_sequence<int, SUMS / 3>());
constexpr auto INNER_PRODUCT = inner_products(std::make_integer_sequence<int, SUMS>());

void weighted_sums(const Terms& terms, const float* w, long w_row, long rows, const float* x,
                   float* out, long out_row) {
  if (terms.weight.empty()) return std::fill_n(out, rows * out_row, 0.0f), void();
  const decltype(&weighted_sum<1, 1>) * sums[] = {ONE_VECTOR.data(), TWO_VECTORS.data(),
                                                 THREE_VECTORS.data()};
  blocks(out_row / LANES, WIDE, [&](long v, long vectors) {
    blocks(rows, SUMS / vectors, [&](long r, long size) {
      sums[vectors - 1][size - 1](terms, w + r * w_row, w_row, x + v * LANES,
                                  out + r * out_row + v * LANES, out_row);
    });
  });
}

void inner_products(const Maps& maps, const Terms& terms, long rows, bool add, float* dw) {
  const long dw_row = long(terms.vector.size());
  blocks(rows, SUMS / FOUR, [&](long r, long size) {
    blocks(dw_row, FOUR, [&](long j, long columns) {
      INNER_PRODUCT[(size - 1) * FOUR + columns - 1](maps, r, &terms.vector[j], add,
                                                     dw + r * dw_row + j, dw_row);
    });
  });
}

}  // namespace
