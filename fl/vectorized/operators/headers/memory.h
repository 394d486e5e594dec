// Memory that a thread keeps between calls: a block for each use, as large as it ever was.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace fednf {

enum class Use {
  PLANES, PLANE_SUMS, IMAGES, IMAGE_SUMS, COLUMNS, COLUMN_SUMS, TRANSPOSED, TURNED, GRADIENT, FILTERS,
  USES
};

// Who asks again for the same use has to be done with what was had before. From a line of the cache
// on: vectors that lie across two take twice as long.
inline float* memory(Use use, long floats) {
  constexpr long LINE = 16;
  thread_local std::array<std::vector<float>, size_t(Use::USES)> kept;
  std::vector<float>& block = kept[size_t(use)];
  if (long(block.size()) < floats + LINE) block.resize(floats + LINE);
  return block.data() + (-reinterpret_cast<uintptr_t>(block.data()) / sizeof(float)) % LINE;
}

inline float* zeros(Use use, long floats) {
  float* at = memory(use, floats);
  std::fill_n(at, floats, 0.0f);
  return at;
}

}  // namespace fednf
