// The sizes of a convolution, and how its maps are laid out in planes.

#pragma once

#include <algorithm>

#include "sums.h"

namespace fednf {

struct Axis {
  long in, kernel, stride, pad;
  long out() const { return (in + 2 * pad - kernel) / stride + 1; }
  long reach() const { return (kernel - 1) / stride; }      // furthest tap within a phase
  long phases() const { return std::min(stride, kernel); }  // those that some tap reads

  // The pixels of an output, from `first` to before `end`, for which a tap meets the input.
  long first(long tap) const { return std::max(0L, (pad - tap + stride - 1) / stride); }
  long end(long tap) const {
    const long last = in - 1 + pad - tap;
    return last < 0 ? 0 : std::min(out(), last / stride + 1);
  }
};

struct Geometry {
  long batch, in, out;  // images, channels of input and output
  Axis h, w;
  long taps, inputs, outputs;           // sizes of a filter's plane, an input, an output
  long pitch, length;                   // of a row and of a map, laid out with zeros
  long reach, x_plane, x_image, y_plane, y_image;  // all in floats

  Geometry(long batch, long in, long out, Axis h, Axis w)
      : batch(batch), in(in), out(out), h(h), w(w), taps(h.kernel * w.kernel),
        inputs(in * h.in * w.in), outputs(out * h.out() * w.out()) {
    // At stride 1 the zeros on the right of a row are those on the left of the next.
    pitch = w.stride == 1 ? w.in + w.pad : w.out() + w.reach();
    length = (h.out() - 1) * pitch + w.out();
    reach = h.reach() * pitch + w.reach();
    x_plane = plane(length + reach + LANES);
    x_image = in * h.phases() * w.phases() * x_plane;
    y_plane = plane(length + 2 * reach + LANES);
    y_image = out * y_plane;
  }
  // An odd number of cache lines, so that planes don't compete for the same sets of the cache.
  static long plane(long floats) { return ((floats + 15) / 16 | 1) * 16; }
};

}  // namespace fednf
