// Loops over constants. Included by kernels of every instruction set: internal linkage throughout.
#pragma once

#include <cstddef>

namespace lepton {
namespace {

template <size_t kValue>
struct Index {
  constexpr operator size_t() const { return kValue; }
};

// f of 0 … kCount − 1 as constants. Arrays that only constants index live in registers; where a
// loop of a single turn or one that is unrolled late has indexed them, GCC leaves them in memory.
template <size_t kCount, size_t kFirst = 0, typename F>
__attribute__((always_inline)) inline void for_each_index(F&& f) {
  if constexpr (kFirst < kCount) {
    f(Index<kFirst>());
    for_each_index<kCount, kFirst + 1>(f);
  }
}

}  // namespace
}  // namespace lepton
