// Filters brought to mean 0 and variance 1, and times a gain, before they are used.
//
// With x̂ = (x - μ)/√(σ² + ε), of a row x of N numbers, and y = g x̂:
//
//   dg = sum dy x̂        dx = g (dy - (sum dy)/N - x̂ dg/N)/√(σ² + ε)

#pragma once

#include "rows.h"

namespace fednf {

struct Filter : Sample {
  using Sample::Sample;

  void forward(float gain, float* y) const {
    const float factor = gain * slope;
    each(n, [&](long i, auto some) { write(y + i, (read(x + i, some) - mean) * factor); });
  }

  // Returns the gradient of the gain.
  float backward(float gain, const float* dy, float* dx) const {
    const float of_y = sum(n, [&](long i, auto some) { return read(dy + i, some); });
    const float of_gain = sum(n, [&](long i, auto some) {
      return read(dy + i, some) * (read(x + i, some) - mean);
    });
    const float dg = of_gain * slope, factor = gain * slope;
    const float level = of_y / float(n), tilt = dg * slope / float(n);
    each(n, [&](long i, auto some) {
      const auto apart = read(x + i, some) - mean;
      write(dx + i, (read(dy + i, some) - level - apart * tilt) * factor);
    });
    return dg;
  }
};

}  // namespace fednf
