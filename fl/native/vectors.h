// Vectors of the processor, by the compiler's own extension.

#pragma once

#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

template <int SIZE>
struct Floats {
  typedef float Vector __attribute__((vector_size(4 * SIZE)));
  typedef float InMemory __attribute__((vector_size(4 * SIZE), aligned(4), may_alias));
};
using Vector = Floats<LANES>::Vector;

// The compiler would otherwise load a vector again for each of its uses.
inline Vector load(const float* from) {
  Vector v = *reinterpret_cast<const Floats<LANES>::InMemory*>(from);
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

inline void store(float* to, Vector v) {
  *reinterpret_cast<Floats<LANES>::InMemory*>(to) = v;
}

// From each four elements of a (numbers 0 to 3) and of b (4 to 7), those with the numbers PICK.
template <int... PICK, size_t... I>
inline Vector mix(Vector a, Vector b, std::index_sequence<I...>) {
  constexpr int pick[] = {PICK...};
  return Vector{(pick[I % 4] < 4 ? a : b)[I / 4 * 4 + pick[I % 4] % 4]...};
}

}  // namespace
