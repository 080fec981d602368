// Sixteen columns at a time, down the rows, straight from the accumulator tile in L1: their bias
// stays in a register. The last columns go through masked loads and stores, so nothing beyond n is
// touched. Bound by the store to dst.
#include <immintrin.h>

#include "ops/epilogue.h"

namespace lepton {
namespace {

// The columns under the mask from j on, all rows. Without a bias or a residual nothing is added:
// −0 + 0 would be +0.
template <bool kBias, bool kResidual>
inline void columns(const EpilogueF32Params& params, __mmask16 mask, size_t j) {
  const __m512 min_f32x16 = _mm512_set1_ps(params.min), max_f32x16 = _mm512_set1_ps(params.max);
  const __m512 bias_f32x16 =
      kBias ? _mm512_maskz_loadu_ps(mask, params.bias + j) : _mm512_setzero_ps();
  const float *acc = params.acc + j, *residual = params.residual + j;
  float* dst = params.dst + j;
  for (size_t i = 0; i < params.m; ++i) {
    __m512 y_f32x16 = _mm512_maskz_loadu_ps(mask, acc);
    if (kBias) y_f32x16 = _mm512_add_ps(y_f32x16, bias_f32x16);
    if (kResidual) y_f32x16 = _mm512_add_ps(y_f32x16, _mm512_maskz_loadu_ps(mask, residual));
    // max and min return their second operand when either is NaN, so NaN passes through.
    y_f32x16 = _mm512_min_ps(max_f32x16, _mm512_max_ps(min_f32x16, y_f32x16));
    _mm512_mask_storeu_ps(dst, mask, y_f32x16);
    acc += params.acc_stride;
    dst += params.dst_stride;
    if (kResidual) residual += params.residual_stride;
  }
}

template <bool kBias, bool kResidual>
void epilogue(EpilogueF32Params params) {  // by value: stores to dst cannot alias it
  size_t j = 0;
  for (; j + 16 <= params.n; j += 16) columns<kBias, kResidual>(params, 0xffff, j);
  if (j < params.n)
    columns<kBias, kResidual>(params, static_cast<__mmask16>((1u << (params.n - j)) - 1), j);
}

}  // namespace

void epilogue_f32_avx512(const EpilogueF32Params& params) {
  const bool residual = params.residual != nullptr;
  if (params.bias != nullptr)
    residual ? epilogue<true, true>(params) : epilogue<true, false>(params);
  else
    residual ? epilogue<false, true>(params) : epilogue<false, false>(params);
}

}  // namespace lepton
