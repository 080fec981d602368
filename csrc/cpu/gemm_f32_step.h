// The inner step of float32 products for any width of vector V (f32x8_avx2.h, f32x16_avx512.h):
// one row of a panel, loaded or unpacked once, meets one value of each row of lhs, broadcast.
// Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>

namespace lepton {
namespace {

// Asks for a step's share of what comes next: a line, or two where the share is a wide panel's row.
template <typename V>
inline void prefetch_share(const float* next, size_t share) {
  _mm_prefetch(next, _MM_HINT_T1);
  if constexpr (2 * V::lanes * sizeof(float) > 64) _mm_prefetch(next + share / 2, _MM_HINT_T1);
}

template <typename V, size_t kRows, size_t kVectors>
inline void multiply_row(const float* lhs, size_t stride, V (&panel)[kVectors],
                         V (&sum)[kRows][kVectors]) {
#pragma GCC unroll 2
  for (size_t v = 0; v < kVectors; ++v) panel[v].pin();
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const V value = V::set(lhs[i * stride]);
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = fma(value, panel[v], sum[i][v]);
      sum[i][v].pin();
    }
  }
}

template <typename V, size_t kRows, size_t kVectors>
inline void gemm_f32_step(const float* lhs, size_t stride, const float* rhs,
                          V (&sum)[kRows][kVectors]) {
  V panel[kVectors];
#pragma GCC unroll 2
  for (size_t v = 0; v < kVectors; ++v) panel[v] = V::load(rhs + v * V::lanes);
  multiply_row(lhs, stride, panel, sum);
}

}  // namespace
}  // namespace lepton
