// Convolutions by vectors over the images of a batch, whose number is a multiple of a vector's.
//
// The images are turned, so that the numbers of one pixel in all images lie next to each other. Then no vector holds a zero from
// beyond the border, and of a pixel there only those taps are summed that meet the map, which are
// 70 % of all in a map of 4 x 4.

#pragma once

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "geometry.h"
#include "memory.h"
#include "sums.h"
#include "turn.h"

namespace fednf {

// Which taps of a filter's axis meet the other map for one pixel, and where.
struct Meeting {
  long tap, count, at;  // the first, their number, the pixel that the first meets
};

struct Meetings {
  std::vector<Meeting> of;  // each pixel
  long apart, on, size;     // from tap to tap; from pixel to pixel; of the other axis
  long total() const {
    long sum = 0;
    for (const Meeting& one : of) sum += one.count;
    return sum;
  }
};

// Of an output's pixels with those of the input.
inline Meetings forward_meetings(const Axis& axis) {
  Meetings all{{}, 1, 1, axis.in};
  for (long n = 0; n < axis.out(); ++n) {
    const long first = n * axis.stride - axis.pad, tap = std::max(0L, -first);
    const long end = std::min(axis.kernel, axis.in - first);
    all.of.push_back({tap, std::max(0L, end - tap), first + tap});
  }
  return all;
}

// Of an input's pixels with those of the output.
inline Meetings backward_meetings(const Axis& axis) {
  Meetings all{{}, axis.stride, -1, axis.out()};
  for (long i = 0; i < axis.in; ++i) {
    const long last = i + axis.pad;  // the tap that would meet the output's first pixel
    const long tap = std::max(last % axis.stride, last - (axis.out() - 1) * axis.stride);
    const long most = std::min(axis.kernel - 1, last);
    const long count = most < tap ? 0 : (most - tap) / axis.stride + 1;
    all.of.push_back({tap, count, (last - tap) / axis.stride});
  }
  return all;
}

class Images {
 public:
  // How many of a batch go this way, if any: it has fewer products than vectors over pixels, but
  // turning a number takes as long as TURN of them. With a stride of 2 so does splitting it off.
  static long of(const Geometry& g) {
    if (g.batch < LANES) return 0;
    constexpr long TURN = 2 * LANES;
    const long turned = g.h.stride * g.w.stride == 1 ? TURN * (g.inputs + g.outputs) : 0;
    const long meetings = forward_meetings(g.h).total() * forward_meetings(g.w).total();
    const bool pays = meetings * g.in * g.out + turned < padded(g.length) * g.taps * g.in * g.out;
    return pays ? g.batch / LANES * LANES : 0;
  }

  static Images forward(const Geometry& g, long images) {
    return {images, g.in, g.out, g.taps, g.w.kernel, forward_meetings(g.h), forward_meetings(g.w)};
  }

  // Its weights are (C, O, taps).
  static Images backward(const Geometry& g, long images) {
    return {images, g.out, g.in, g.taps, g.w.kernel, backward_meetings(g.h), backward_meetings(g.w)};
  }

  void operator()(const float* maps, const float* w, float* results) const {
    turn(maps, inputs, images, inputs, [&](long i) { return x + i * images; });
    float* at = y;
    for (const Meeting& row : rows.of)
      for (const Meeting& column : columns.of) {
        const float* first = x + (row.at * columns.size + column.at) * images;
        weighted_sums(terms.at(key(row, column)), w, from * taps, to, first, images / LANES, at,
                      pixels * images);
        at += images;
      }
    turn(y, images, to * pixels, images, [&](long b) { return results + b * to * pixels; });
  }

 private:
  Images(long images, long from, long to, long taps, long width, Meetings h, Meetings w)
      : images(images), from(from), to(to), taps(taps), width(width), rows(std::move(h)),
        columns(std::move(w)), pixels(rows.of.size() * columns.of.size()),
        inputs(from * rows.size * columns.size), x(memory(Use::IMAGES, inputs * images)),
        y(memory(Use::IMAGE_SUMS, to * pixels * images)) {
    for (const Meeting& row : rows.of)
      for (const Meeting& column : columns.of)
        if (!terms.contains(key(row, column))) terms.emplace(key(row, column), sum(row, column));
  }

  using Key = std::tuple<long, long, long, long>;
  const long images, from, to, taps, width;  // channels; sizes of a filter and of its rows
  Meetings rows, columns;
  const long pixels, inputs;
  float *const x, *const y;
  std::map<Key, Terms> terms;  // pixels away from the border have the same

  static Key key(const Meeting& row, const Meeting& column) {
    return {row.tap, row.count, column.tap, column.count};
  }

  Terms sum(const Meeting& row, const Meeting& column) const {
    Terms all(from * row.count * column.count);
    for (long c = 0; c < from; ++c)
      for (long s = 0; s < row.count; ++s)
        for (long t = 0; t < column.count; ++t) {
          const long tap = (row.tap + s * rows.apart) * width + column.tap + t * columns.apart;
          const long pixel = (c * rows.size + s * rows.on) * columns.size + t * columns.on;
          all.add(c * taps + tap, pixel * images);
        }
    return all;
  }
};

}  // namespace fednf
