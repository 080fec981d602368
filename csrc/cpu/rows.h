// From a number of rows known at run time to code unrolled for it. Internal linkage throughout.
#pragma once

#include <cstddef>

#include "cpu/unrolled.h"

namespace lepton {
namespace {

// f(Index<rows>()) for 1 ≤ rows ≤ kMost. Whole tiles, the most frequent, are asked for first.
template <size_t kMost, typename F>
inline void with_rows(size_t rows, const F& f) {
  if constexpr (kMost > 1) {
    if (rows < kMost) return with_rows<kMost - 1>(rows, f);
  }
  f(Index<kMost>());
}

}  // namespace
}  // namespace lepton
