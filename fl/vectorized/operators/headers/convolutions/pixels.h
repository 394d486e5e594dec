// Convolutions by vectors over the pixels of one image.
//
// Maps are copied into planes with zeros around them, all of one pitch, so that a shift is an offset
// and a whole map is one long row of vectors: the zeros between two rows serve both. A stride of 2
// splits the input into 2 x 2 phases, each an ordinary map.

#pragma once

#include <algorithm>
#include <vector>

#include "geometry.h"
#include "memory.h"
#include "sums.h"

namespace fednf {

// Pixels stride * n + first, n in [begin, end), of one phase. For odd kernels and strides 1 and 2,
// n < out + reach: each has its place in a plane, and its gradient.
struct Phase {
  long stride, first, begin, end;
  Phase(const Axis& axis, long phase) : stride(axis.stride), first(phase - axis.pad) {
    begin = std::max(0L, (stride - 1 - first) / stride);
    end = std::max(begin, (axis.in - first + stride - 1) / stride);
  }
  long pixel(long n) const { return stride * n + first; }
  long size() const { return end - begin; }
};

// Copies a short row by vectors. The last vector overlaps the one before it, and rows shorter than a
// vector are copied by smaller vectors.
template <int SIZE = LANES>
inline void copy(float* to, const float* from, long n) {
  if constexpr (SIZE > 1) {
    if (n < SIZE) return copy<SIZE / 2>(to, from, n);
    typedef typename Floats<SIZE>::InMemory Part;
    const auto move = [&](long i) { *(Part*)(to + i) = *(const Part*)(from + i); };
    for (long i = 0; i < n - SIZE; i += SIZE) move(i);
    move(n - SIZE);
  } else if (n) {
    *to = *from;
  }
}

class PixelsForward {
 public:
  explicit PixelsForward(const Geometry& g)
      : g(g), row(padded(g.length)), terms(of(g)), planes(zeros(Use::PLANES, g.x_image)),
        out(memory(Use::PLANE_SUMS, g.out * row)) {}

  void operator()(const float* images, const float* w, float* y) const {
    for (long b = 0; b < g.batch; ++b, y += g.outputs) {
      pad(images + b * g.inputs);
      weighted_sums(terms, w, g.in * g.taps, g.out, planes, row / LANES, out, row);
      for (long o = 0; o < g.out; ++o)
        for (long n = 0; n < g.h.out(); ++n)
          copy(y + (o * g.h.out() + n) * g.w.out(), out + o * row + n * g.pitch, g.w.out());
    }
  }

 private:
  const Geometry g;
  const long row;
  Terms terms;
  float *const planes, *const out;

  static Terms of(const Geometry& g) {
    Terms terms(g.in * g.taps);
    for (long c = 0, j = 0; c < g.in; ++c)
      for (long s = 0; s < g.h.kernel; ++s)
        for (long t = 0; t < g.w.kernel; ++t) {
          const long phase = (c * g.h.phases() + s % g.h.stride) * g.w.phases() + t % g.w.stride;
          terms.add(j++, phase * g.x_plane + s / g.h.stride * g.pitch + t / g.w.stride);
        }
    return terms;
  }

  void pad(const float* x) const {
    float* to = planes;
    for (long c = 0; c < g.in; ++c, x += g.h.in * g.w.in)
      for (long i = 0; i < g.h.phases(); ++i)
        for (long j = 0; j < g.w.phases(); ++j, to += g.x_plane) {
          const Phase v(g.h, i), u(g.w, j);
          for (long n = v.begin; n < v.end; ++n) {
            const float* from = x + v.pixel(n) * g.w.in + u.first;
            float* at = to + n * g.pitch;
            if (u.stride == 1) copy(at + u.begin, from + u.begin, u.size());
            else for (long m = u.begin; m < u.end; ++m) at[m] = from[2 * m];
          }
        }
  }
};

// From (O, C, taps) to (C, O, taps). Weights are read row by row, which the processor prefetches.
inline const float* transposed(const Geometry& g, const float* w) {
  float* const to = memory(Use::TRANSPOSED, g.out * g.in * g.taps);
  for (long o = 0; o < g.out; ++o)
    for (long c = 0; c < g.in; ++c, w += g.taps) copy(to + (c * g.out + o) * g.taps, w, g.taps);
  return to;
}

class PixelsBackward {
 public:
  explicit PixelsBackward(const Geometry& g)
      : g(g), planes(zeros(Use::PLANES, g.y_image)), out(memory(Use::PLANE_SUMS, g.in * g.y_plane)) {
    for (long i = 0; i < g.h.stride; ++i)
      for (long j = 0; j < g.w.stride; ++j) terms.push_back(of(g, i, j));
  }

  void operator()(const float* dy, const float* w, float* dx) const {
    w = transposed(g, w);
    for (long b = 0; b < g.batch; ++b, dx += g.inputs) {
      pad(dy + b * g.outputs);
      for (size_t p = 0; p < terms.size(); ++p) phase(p, w, dx);
    }
  }

 private:
  const Geometry g;
  std::vector<Terms> terms;  // of each phase
  float *const planes, *const out;

  static Terms of(const Geometry& g, long i, long j) {
    Terms terms(g.out * g.taps);
    for (long o = 0; o < g.out; ++o)
      for (long s = i; s < g.h.kernel; s += g.h.stride)
        for (long t = j; t < g.w.kernel; t += g.w.stride)
          terms.add(o * g.taps + s * g.w.kernel + t,
                    o * g.y_plane - s / g.h.stride * g.pitch - t / g.w.stride);
    return terms;
  }

  void pad(const float* y) const {
    float* to = planes + g.reach;
    for (long o = 0; o < g.out; ++o, to += g.y_plane)
      for (long n = 0; n < g.h.out(); ++n, y += g.w.out()) copy(to + n * g.pitch, y, g.w.out());
  }

  void phase(long p, const float* w, float* dx) const {
    const Phase v(g.h, p / g.w.stride), u(g.w, p % g.w.stride);
    if (!v.size() || !u.size()) return;
    const long row = padded((v.size() - 1) * g.pitch + u.size());
    const float* dy = planes + g.reach + v.begin * g.pitch + u.begin;
    weighted_sums(terms[p], w, g.out * g.taps, g.in, dy, row / LANES, out, row);
    for (long c = 0; c < g.in; ++c, dx += g.h.in * g.w.in)
      for (long n = 0; n < v.size(); ++n) {
        float* to = dx + v.pixel(v.begin + n) * g.w.in + u.pixel(u.begin);
        const float* from = out + c * row + n * g.pitch;
        if (u.stride == 1) copy(to, from, u.size());
        else for (long m = 0; m < u.size(); ++m) to[2 * m] = from[m];
      }
  }
};

}  // namespace fednf
