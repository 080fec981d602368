// Eight columns at a time, down the rows, straight from the accumulator tile in L1: their bias
// stays in a register. The last columns go through masked loads and stores, so nothing beyond n is
// touched. Bound by the store to dst.
#include <immintrin.h>

#include "ops/epilogue.h"

namespace lepton {
namespace {

// The first `count` of eight lanes.
inline __m256i mask_of(size_t count) {
  const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane_i32x8);
}

// Loads and stores of eight columns, and of the first of them.
struct Whole {
  __m256 load(const float* p) const { return _mm256_loadu_ps(p); }
  void store(float* p, __m256 v) const { _mm256_storeu_ps(p, v); }
};
struct Tail {
  __m256i mask;
  __m256 load(const float* p) const { return _mm256_maskload_ps(p, mask); }
  void store(float* p, __m256 v) const { _mm256_maskstore_ps(p, mask, v); }
};

// Eight columns from j on, or the first of them, all rows. Without a bias or a residual nothing is
// added: −0 + 0 would be +0.
template <bool kBias, bool kResidual, typename Access>
inline void columns(const EpilogueF32Params& params, Access access, size_t j) {
  const __m256 min_f32x8 = _mm256_set1_ps(params.min), max_f32x8 = _mm256_set1_ps(params.max);
  const __m256 bias_f32x8 = kBias ? access.load(params.bias + j) : _mm256_setzero_ps();
  for (size_t i = 0; i < params.m; ++i) {
    __m256 y_f32x8 = access.load(params.acc + i * params.acc_stride + j);
    if (kBias) y_f32x8 = _mm256_add_ps(y_f32x8, bias_f32x8);
    if (kResidual)
      y_f32x8 =
          _mm256_add_ps(y_f32x8, access.load(params.residual + i * params.residual_stride + j));
    // max and min return their second operand when either is NaN, so NaN passes through.
    y_f32x8 = _mm256_min_ps(max_f32x8, _mm256_max_ps(min_f32x8, y_f32x8));
    access.store(params.dst + i * params.dst_stride + j, y_f32x8);
  }
}

template <bool kBias, bool kResidual>
void epilogue(EpilogueF32Params params) {  // by value: stores to dst cannot alias it
  size_t j = 0;
  for (; j + 8 <= params.n; j += 8) columns<kBias, kResidual>(params, Whole{}, j);
  if (j < params.n) columns<kBias, kResidual>(params, Tail{mask_of(params.n - j)}, j);
}

}  // namespace

void epilogue_f32_avx2(const EpilogueF32Params& params) {
  const bool residual = params.residual != nullptr;
  if (params.bias != nullptr)
    residual ? epilogue<true, true>(params) : epilogue<true, false>(params);
  else
    residual ? epilogue<false, true>(params) : epilogue<false, false>(params);
}

}  // namespace lepton
