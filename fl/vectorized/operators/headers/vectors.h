// Vectors of the processor, by the compiler's own extension.

#pragma once

#include <cstddef>
#include <utility>

namespace fednf {

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

// The compiler would otherwise load a vector again for each of its uses, or each number by itself.
template <int SIZE = LANES>
inline typename Floats<SIZE>::Vector load(const float* from) {
  typename Floats<SIZE>::Vector v =
      *reinterpret_cast<const typename Floats<SIZE>::InMemory*>(from);
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

template <int SIZE = LANES>
inline void store(float* to, typename Floats<SIZE>::Vector v) {
  *reinterpret_cast<typename Floats<SIZE>::InMemory*>(to) = v;
}

// The sum of a vector's numbers, by halves.
template <int SIZE>
inline float inside(typename Floats<SIZE>::Vector v) {
  if constexpr (SIZE == 1) {
    return v[0];
  } else {
    typename Floats<SIZE / 2>::Vector halves[2];
    __builtin_memcpy(halves, &v, sizeof v);
    return inside<SIZE / 2>(halves[0] + halves[1]);
  }
}

// From each four elements of a (numbers 0 to 3) and of b (4 to 7), those with the numbers PICK.
template <int... PICK, class Some, size_t... I>
inline Some mix(Some a, Some b, std::index_sequence<I...>) {
  constexpr int pick[] = {PICK...};
  return Some{(pick[I % 4] < 4 ? a : b)[I / 4 * 4 + pick[I % 4] % 4]...};
}

// Each second number of a and b, from the first or the second on.
template <int FIRST, class Some, size_t... I>
inline Some each_second(Some a, Some b, std::index_sequence<I...>) {
  constexpr size_t half = sizeof...(I) / 2;
  return Some{(I < half ? a : b)[I % half * 2 + FIRST]...};
}

// a and b by turns, from one of their numbers on: a[FROM], b[FROM], a[FROM + 1], ...
template <int FROM, class Some, size_t... I>
inline Some by_turns(Some a, Some b, std::index_sequence<I...>) {
  return Some{(I % 2 ? b : a)[FROM + I / 2]...};
}

}  // namespace fednf
