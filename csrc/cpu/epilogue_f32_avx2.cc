// Eight columns a step straight from the accumulator tile in L1; the last columns of a row go
// through masked loads and stores, so nothing beyond n is touched. Bound by the store to dst.
#include <immintrin.h>

#include "ops/epilogue.h"

namespace lepton {
namespace {

// The first `count` of eight lanes.
inline __m256i mask_of(size_t count) {
  const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane_i32x8);
}

struct Clamp {
  __m256 min, max;
  // max and min return their second operand when either is NaN, so NaN passes through.
  __m256 operator()(__m256 v) const { return _mm256_min_ps(max, _mm256_max_ps(min, v)); }
};

}  // namespace

void epilogue_f32_avx2(const EpilogueF32Params& params) {
  const Clamp clamp = {_mm256_set1_ps(params.min), _mm256_set1_ps(params.max)};
  const size_t whole = params.n & ~size_t{7};
  const size_t tail = params.n - whole;
  const __m256i mask = mask_of(tail);
  for (size_t i = 0; i < params.m; ++i) {
    const float* acc = params.acc + i * params.acc_stride;
    const float* residual =
        params.residual == nullptr ? nullptr : params.residual + i * params.residual_stride;
    float* dst = params.dst + i * params.dst_stride;
    for (size_t j = 0; j < whole; j += 8) {
      __m256 y_f32x8 = _mm256_loadu_ps(acc + j);
      if (params.bias != nullptr)
        y_f32x8 = _mm256_add_ps(y_f32x8, _mm256_loadu_ps(params.bias + j));
      if (residual != nullptr) y_f32x8 = _mm256_add_ps(y_f32x8, _mm256_loadu_ps(residual + j));
      _mm256_storeu_ps(dst + j, clamp(y_f32x8));
    }
    if (tail == 0) continue;
    __m256 y_f32x8 = _mm256_maskload_ps(acc + whole, mask);
    if (params.bias != nullptr)
      y_f32x8 = _mm256_add_ps(y_f32x8, _mm256_maskload_ps(params.bias + whole, mask));
    if (residual != nullptr)
      y_f32x8 = _mm256_add_ps(y_f32x8, _mm256_maskload_ps(residual + whole, mask));
    _mm256_maskstore_ps(dst + whole, mask, clamp(y_f32x8));
  }
}

}  // namespace lepton
