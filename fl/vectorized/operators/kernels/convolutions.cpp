// Convolutions of micro-batches on one core: every lane has its own images and its own weights.
//
// With p for a pixel of a map and j for a weight of a filter (channel and tap), these are sums
//
//   forward    y[o][p]  = sum_j w[o][j] x_j[p]      x_j: channel of j, shifted by the tap of j
//   backward  dx[c][p]  = sum_j w[j][c] dy_j[p]
//             dw[o][j]  = sum_p dy[o][p] x_j[p]
//
// With filters of 3 x 3 and a stride of 1 fewer products do, for maps and channels of some size
// (tiling.h, tiles.h, tile_gradient.h). Else the first two are computed by vectors over pixels
// (pixels.h) or over images (images.h), or as products of matrices (columns.h), and the third by
// outer products (weights.h). Sums run over blocks of rows x vectors that stay in registers.
// The way that is taken, and the order of sums, depend on the sizes of a convolution only. So a lane
// gives the same bytes alone and among others.

#include <functional>
#include <tuple>
#include <vector>

#include "columns.h"
#include "geometry.h"
#include "images.h"
#include "memory.h"
#include "pixels.h"
#include "standardize.h"
#include "tensors.h"
#include "tile_gradient.h"
#include "tiles.h"
#include "tiling.h"
#include "weights.h"

namespace fednf {
namespace {

// ---- Operators ------------------------------------------------------------------------------
Geometry geometry(const Tensor& x, const Tensor& w, long stride, long pad) {
  const bool flat = x.dim() == 4;
  STD_TORCH_CHECK((flat || x.dim() == 5) && w.dim() == x.dim() && x.size(0) == w.size(0) &&
                      x.size(2) == w.size(2) && x.numel() && w.numel(),
                  "x is (K, B, C, *S), w (K, O, C, *k), *S one or two sizes, none of them 0; got ",
                  told(x), " and ", told(w));
  STD_TORCH_CHECK(is_float(x) && is_float(w), "float32 only; got ", told(x), " and ", told(w));
  const Axis width{x.size(-1), w.size(-1), stride, pad};
  const Axis height = flat ? Axis{1, 1, 1, 0} : Axis{x.size(3), w.size(3), stride, pad};
  for (const Axis& axis : {height, width})
    STD_TORCH_CHECK(axis.kernel % 2 && 0 <= axis.pad && axis.pad < axis.kernel &&
                        axis.stride >= 1 && axis.stride <= 2 &&
                        axis.kernel <= axis.in + 2 * axis.pad,
                    "the kernel is odd and fits, 0 <= padding < kernel, the stride is 1 or 2; ",
                    "got kernel ", axis.kernel, " over ", axis.in, ", padding ", pad, ", stride ",
                    stride);
  return Geometry(x.size(1), x.size(2), w.size(1), height, width);
}

// Filters of lanes, used as they are.
struct Filters {
  const float* w;
  long lane, count;  // floats from lane to lane, and in one
  float* dw;         // all lanes' gradients
  Filters(const Geometry& g, const Tensor& w, float* dw = nullptr)
      : w(floats(w)), lane(w.stride(0)), count(g.out * g.in * g.taps), dw(dw) {}
  const float* of(long k) const { return w + k * lane; }
  float* gradient(long k) const { return dw + k * count; }
  void done(long) const {}
};

// Filters of lanes, standardized one lane at a time, so that they are in the cache when used.
struct StandardizedFilters {
  const Filters raw;
  const float* gain;
  long lane, rows, n;  // of gains from lane to lane; filters, and weights of one
  double eps;
  float *dgain, *standard, *grad;
  std::vector<Filter>& filters;  // of the lane whose turn it is

  StandardizedFilters(const Geometry& g, const Tensor& w, const Tensor& gain, double eps,
                      float* dw = nullptr, float* dgain = nullptr)
      : raw(g, w, dw), gain(floats(gain)), lane(gain.stride(0)), rows(g.out), n(g.in * g.taps),
        eps(eps), dgain(dgain), filters(kept()) {
    standard = memory(Use::FILTERS, 2 * raw.count), grad = standard + raw.count;
  }
  static std::vector<Filter>& kept() {
    thread_local std::vector<Filter> filters;
    return filters;
  }
  const float* of(long k) const {
    filters.clear();
    for (long r = 0; r < rows; ++r) {
      filters.emplace_back(raw.of(k) + r * n, n, eps);
      filters.back().forward(gain[k * lane + r], standard + r * n);
    }
    return standard;
  }
  float* gradient(long) const { return grad; }
  void done(long k) const {
    for (long r = 0; r < rows; ++r)
      dgain[k * rows + r] =
          filters[r].backward(gain[k * lane + r], grad + r * n, raw.gradient(k) + r * n);
  }
};

// (maps, weights, where results go), or for the gradient of weights (dy, maps, where it goes): of
// all images of a lane.
using Way = std::function<void(const float*, const float*, float*)>;

// As many images as fill vectors are convolved by vectors over images, the rest in another way.
template <class Many, class Few>
Way either(const Geometry& g, long from, long to, Many way_of_many, Few way_of_few) {
  const long many = Images::of(g);
  Geometry left = g;
  left.batch -= many;
  if (!many) return way_of_few(g);
  if (!left.batch) return way_of_many(many);
  return [=, first = way_of_many(many), rest = way_of_few(left)](auto maps, auto w, auto results) {
    first(maps, w, results);
    rest(maps + many * from, w, results + many * to);
  };
}

Way forward(const Geometry& g) {
  if (in_tiles(g)) return Tiles::forward(g);
  const auto many = [&](long images) -> Way { return Images::forward(g, images); };
  return either(g, g.inputs, g.outputs, many, [](const Geometry& few) -> Way {
    if (!Columns::fit(few)) return PixelsForward(few);
    return [columns = Columns(few)](auto... all) { columns.forward(all...); };
  });
}

Way backward(const Geometry& g) {
  if (in_tiles(g)) return Tiles::backward(g);
  const auto many = [&](long images) -> Way {
    return [g, way = Images::backward(g, images)](auto dy, auto w, auto dx) {
      way(dy, transposed(g, w), dx);
    };
  };
  return either(g, g.outputs, g.inputs, many, [](const Geometry& few) -> Way {
    if (!Columns::fit(few)) return PixelsBackward(few);
    return [columns = Columns(few)](auto... all) { columns.backward(all...); };
  });
}

Way gradient(const Geometry& g) {
  if (in_tiles(g)) return TileGradient(g);
  return WeightGradient(g);
}

template <class Some>
Tensor convolve(const Geometry& g, const Tensor& x, const Some& filters) {
  std::vector<int64_t> sizes{x.size(0), g.batch, g.out, g.h.out(), g.w.out()};
  if (x.dim() == 4) sizes.erase(sizes.begin() + 3);
  const Tensor y = new_empty(x, sizes);
  const Way way = forward(g);
  for (long k = 0; k < x.size(0); ++k)
    way(floats(x) + k * x.stride(0), filters.of(k), to_write(y) + k * g.batch * g.outputs);
  return y;
}

// Returns the gradient of x, which is empty unless it is asked for: what a network is given needs
// none. That of the filters goes where they say.
template <class Some>
Tensor convolve_backward(const Geometry& g, const Tensor& dy, const Tensor& x,
                         const Some& filters, bool needs_x) {
  STD_TORCH_CHECK(is_float(dy) && dy.dim() == x.dim() && dy.size(0) == x.size(0) &&
                      dy.numel() == x.size(0) * g.batch * g.outputs,
                  "the gradient is not that of an output; got ", told(dy));
  const Tensor dx = needs_x ? empty_dense(x) : new_empty(x, std::vector<int64_t>{0});
  const Way of_x = needs_x ? backward(g) : Way(), of_w = gradient(g);
  for (long k = 0; k < x.size(0); ++k) {
    const float *grad = floats(dy) + k * dy.stride(0), *standing = filters.of(k);
    if (needs_x) of_x(grad, standing, to_write(dx) + k * g.batch * g.inputs);
    of_w(grad, floats(x) + k * x.stride(0), filters.gradient(k));
    filters.done(k);
  }
  return dx;
}

Tensor lane_conv(const Tensor& x_, const Tensor& w_, int64_t stride, int64_t padding) {
  const Tensor x = by_lane(x_), w = by_lane(w_);
  const Geometry g = geometry(x, w, stride, padding);
  return convolve(g, x, Filters(g, w));
}

std::tuple<Tensor, Tensor> lane_conv_backward(const Tensor& dy, const Tensor& x_, const Tensor& w_,
                                              int64_t stride, int64_t padding, bool needs_x) {
  const Tensor x = by_lane(x_), w = by_lane(w_), dw = empty_dense(w);
  const Geometry g = geometry(x, w, stride, padding);
  return {convolve_backward(g, by_lane(dy), x, Filters(g, w, to_write(dw)), needs_x), dw};
}

void check_gain(const Tensor& gain, const Tensor& w) {
  STD_TORCH_CHECK(is_float(gain) && gain.dim() == 2 && gain.size(0) == w.size(0) &&
                      gain.size(1) == w.size(1),
                  "the gain is (K, O), of float32; got ", told(gain));
}

Tensor standardized_conv(const Tensor& x_, const Tensor& w_, const Tensor& gain_, double eps,
                         int64_t stride, int64_t padding) {
  const Tensor x = by_lane(x_), w = by_lane(w_), gain = by_lane(gain_);
  const Geometry g = geometry(x, w, stride, padding);
  check_gain(gain, w);
  return convolve(g, x, StandardizedFilters(g, w, gain, eps));
}

std::tuple<Tensor, Tensor, Tensor> standardized_conv_backward(
    const Tensor& dy, const Tensor& x_, const Tensor& w_, const Tensor& gain_, double eps,
    int64_t stride, int64_t padding, bool needs_x) {
  const Tensor x = by_lane(x_), w = by_lane(w_), gain = by_lane(gain_);
  const Geometry g = geometry(x, w, stride, padding);
  check_gain(gain, w);
  const Tensor dw = empty_dense(w), dgain = empty_dense(gain);
  const StandardizedFilters filters(g, w, gain, eps, to_write(dw), to_write(dgain));
  return {convolve_backward(g, by_lane(dy), x, filters, needs_x), dw, dgain};
}

STABLE_TORCH_LIBRARY_FRAGMENT(fednf, m) {
  m.def("lane_conv(Tensor x, Tensor w, int stride, int padding) -> Tensor");
  m.def("lane_conv_backward(Tensor grad, Tensor x, Tensor w, int stride, int padding, "
        "bool needs_x) -> (Tensor, Tensor)");
  m.def("standardized_conv(Tensor x, Tensor w, Tensor gain, float eps, int stride, int padding) "
        "-> Tensor");
  m.def("standardized_conv_backward(Tensor grad, Tensor x, Tensor w, Tensor gain, float eps, "
        "int stride, int padding, bool needs_x) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fednf, CPU, m) {
  m.impl("lane_conv", TORCH_BOX(&lane_conv));
  m.impl("lane_conv_backward", TORCH_BOX(&lane_conv_backward));
  m.impl("standardized_conv", TORCH_BOX(&standardized_conv));
  m.impl("standardized_conv_backward", TORCH_BOX(&standardized_conv_backward));
}

}  // namespace
}  // namespace fednf
