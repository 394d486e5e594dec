// Memory that a thread keeps between calls: one block for each use, which grows and never shrinks.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace fednf {

enum class Use {
  PLANES, PLANE_SUMS, IMAGES, IMAGE_SUMS, COLUMNS, COLUMN_SUMS, TRANSPOSED, TURNED, GRADIENT, FILTERS,
  TILED, TILES, TILE_SUMS, TILE_FILTERS, TILES_TURNED, TILE_WEIGHTS, USES
};

// Returns the block of a use, with undefined contents. The next call for the same use returns
// the same memory, so the caller must be done with it by then. The block begins with a line of
// the cache, because reading a vector that lies across two lines takes twice as long.
inline float* memory(Use use, long floats) {
  constexpr long LINE = 16;
  thread_local std::array<std::vector<float>, size_t(Use::USES)> kept;
  std::vector<float>& block = kept[size_t(use)];
  if (long(block.size()) < floats + LINE) block.resize(floats + LINE);
  return block.data() + (-reinterpret_cast<uintptr_t>(block.data()) / sizeof(float)) % LINE;
}

// The same, filled with zeros.
inline float* zeros(Use use, long floats) {
  float* at = memory(use, floats);
  std::fill_n(at, floats, 0.0f);
  return at;
}

}  // namespace fednf
