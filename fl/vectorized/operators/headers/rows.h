// Rows of numbers, which are in the cache from their first sum on: mean 0 and variance 1.

#pragma once

#include <cmath>
#include <utility>

#include "vectors.h"

namespace fednf {

// Calls f(i, T()) for all i < n, of T = Vector or, at the end, float: as many as T has, from i on.
template <class F>
inline void each(long n, F f) {
  long i = 0;
  for (; i + LANES <= n; i += LANES) f(i, Vector());
  for (; i < n; ++i) f(i, 0.0f);
}

inline float read(const float* from, float) { return *from; }
inline Vector read(const float* from, Vector) { return load(from); }
inline void write(float* to, float value) { *to = value; }
inline void write(float* to, Vector value) { store(to, value); }

// The sum of f(i, T()) over the same, by four vectors that don't wait for each other.
template <class F>
inline float sum(long n, F f) {
  Vector total[4] = {};
  float rest = 0;
  long i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int v = 0; v < 4; ++v) total[v] += f(i + v * LANES, Vector());
  for (; i + LANES <= n; i += LANES) total[0] += f(i, Vector());
  for (; i < n; ++i) rest += f(i, 0.0f);
  return inside<LANES>((total[0] + total[1]) + (total[2] + total[3])) + rest;
}

// The two sums of f(i, T()), which returns a pair, in one pass.
template <class F>
inline std::pair<float, float> sums(long n, F f) {
  Vector first[2] = {}, second[2] = {};
  float rest = 0, other = 0;
  long i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES)
    for (int v = 0; v < 2; ++v) {
      const auto [a, b] = f(i + v * LANES, Vector());
      first[v] += a, second[v] += b;
    }
  for (; i + LANES <= n; i += LANES) {
    const auto [a, b] = f(i, Vector());
    first[0] += a, second[0] += b;
  }
  for (; i < n; ++i) {
    const auto [a, b] = f(i, 0.0f);
    rest += a, other += b;
  }
  return {inside<LANES>(first[0] + first[1]) + rest, inside<LANES>(second[0] + second[1]) + other};
}

// ReLU of y, which is as NaN as y is, and of a gradient where the result was y.
template <class T>
inline T rectified(T y) {
  return y < 0 ? T{} : y;
}
template <class T>
inline T rectified(T grad, T y) {
  return y <= 0 ? T{} : grad;
}

struct Sample {
  const float* x;
  long n;
  float mean, slope;  // μ and 1/√(σ² + ε)

  Sample(const float* x, long n, double eps) : x(x), n(n) {
    mean = sum(n, [&](long i, auto some) { return read(x + i, some); }) / float(n);
    const float squares = sum(n, [&](long i, auto some) {
      const auto apart = read(x + i, some) - mean;
      return apart * apart;
    });
    slope = 1 / std::sqrt(squares / float(n) + float(eps));
  }
};

}  // namespace fednf
