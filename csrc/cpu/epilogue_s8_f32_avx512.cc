// Integer sums to floats, along the rows and 64 columns at a time, so that whole lines are filled
// one after another; what belongs to columns stays in registers. Seven instructions for sixteen
// sums with scales and zero points of rows, four without: bound by the stores.
#include <immintrin.h>

#include "ops/epilogue.h"

namespace lepton {
namespace {

// What changes no sum that it is added to, not even a zero's sign.
inline __m512 no_offset() { return _mm512_set1_ps(-0.f); }

// Constant first: max and min then pass a NaN through.
inline __m512 clamped(__m512 y, __m512 min, __m512 max) {
  return _mm512_min_ps(max, _mm512_max_ps(min, y));
}

// The last columns, at most sixteen from j on, down the rows.
inline void narrow_rows(const EpilogueS8Params& params, size_t j) {
  const __mmask16 mask = params.n - j >= 16 ? 0xffff : (1u << (params.n - j)) - 1;
  const auto ints = [&](const int32_t* p) {
    return p == nullptr ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(mask, p + j);
  };
  const auto floats = [&](const float* p) { return _mm512_maskz_loadu_ps(mask, p + j); };
  const __m512i bias_i32x16 = ints(params.bias), column_sum_i32x16 = ints(params.column_sum);
  const __m512 scale_f32x16 = floats(params.scale);
  const __m512 float_bias_f32x16 =
      params.float_bias == nullptr ? no_offset() : floats(params.float_bias);
  const auto* residual = static_cast<const float*>(params.residual);
  auto* const dst = static_cast<float*>(params.dst) + j;
  for (size_t i = 0; i < params.m; ++i) {
    __m512i sum_i32x16 = _mm512_add_epi32(ints(params.acc + i * params.acc_stride), bias_i32x16);
    if (params.row_zero_point != nullptr) {
      const __m512i zero_point_i32x16 = _mm512_set1_epi32(params.row_zero_point[i]);
      sum_i32x16 =
          _mm512_sub_epi32(sum_i32x16, _mm512_mullo_epi32(zero_point_i32x16, column_sum_i32x16));
    }
    __m512 y_f32x16 = _mm512_mul_ps(_mm512_cvtepi32_ps(sum_i32x16), scale_f32x16);
    if (params.row_scale != nullptr)
      y_f32x16 = _mm512_mul_ps(y_f32x16, _mm512_set1_ps(params.row_scale[i]));
    y_f32x16 = _mm512_add_ps(y_f32x16, float_bias_f32x16);
    if (residual != nullptr)
      y_f32x16 = _mm512_add_ps(y_f32x16, floats(residual + i * params.residual_stride));
    y_f32x16 = clamped(y_f32x16, _mm512_set1_ps(params.min), _mm512_set1_ps(params.max));
    _mm512_mask_storeu_ps(dst + i * params.dst_stride, mask, y_f32x16);
  }
}

// zero_point · column_sum as a pair of products of 16 bits, which one instruction multiplies and
// adds where a product of 32 bits takes two: column_sum = 128 · high + low.
inline __m512i split_sums(const int32_t* column_sum) {
  const __m512i sum_i32x16 = _mm512_loadu_si512(column_sum);
  const __m512i low_i32x16 = _mm512_and_si512(sum_i32x16, _mm512_set1_epi32(127));
  return _mm512_or_si512(_mm512_slli_epi32(_mm512_sub_epi32(sum_i32x16, low_i32x16), 9),
                         low_i32x16);
}
inline __m512i split_zero_point(int32_t zero_point) {
  return _mm512_set1_epi32((zero_point << 7) << 16 | zero_point);
}

// Whether the rows' zero points fit a byte and the columns' sums 23 bits, or there are none, and
// nothing else is added to the sums.
inline bool has_split_sums(const EpilogueS8Params& params) {
  if (params.row_zero_point == nullptr) return true;
  uint32_t points = 0;
  for (size_t i = 0; i < params.m; ++i) points |= static_cast<uint32_t>(params.row_zero_point[i]);
  __m512i high_u32x16 = _mm512_setzero_si512();
  for (size_t j = 0; j + 16 <= params.n; j += 16)
    high_u32x16 =
        _mm512_max_epu32(high_u32x16, _mm512_abs_epi32(_mm512_loadu_si512(params.column_sum + j)));
  const bool fits = _mm512_cmpge_epu32_mask(high_u32x16, _mm512_set1_epi32(1 << 22)) == 0;
  return fits && points <= 255 && params.bias == nullptr;
}

// Along the rows, 64 columns at a time: floats fill whole lines one after another. What belongs to
// columns stays in registers, and what is null costs nothing. Returns the columns done.
template <bool kZeroPoints, bool kRowScale, bool kClamp>
inline size_t wide_rows(const EpilogueS8Params& params) {
  const __m512 min_f32x16 = _mm512_set1_ps(params.min), max_f32x16 = _mm512_set1_ps(params.max);
  size_t j = 0;
  for (; j + 64 <= params.n; j += 64) {
    __m512i added_i32x16[4];
    __m512 scale_f32x16[4], float_bias_f32x16[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      const size_t at = j + 16 * k;
      added_i32x16[k] = kZeroPoints              ? split_sums(params.column_sum + at)
                        : params.bias == nullptr ? _mm512_setzero_si512()
                                                 : _mm512_loadu_si512(params.bias + at);
      scale_f32x16[k] = _mm512_loadu_ps(params.scale + at);
      float_bias_f32x16[k] =
          params.float_bias == nullptr ? no_offset() : _mm512_loadu_ps(params.float_bias + at);
    }
    const int32_t* acc = params.acc + j;
    float* dst = static_cast<float*>(params.dst) + j;
    const float* residual = static_cast<const float*>(params.residual);
    if (residual != nullptr) residual += j;
    for (size_t i = 0; i < params.m; ++i, acc += params.acc_stride, dst += params.dst_stride) {
      const __m512i point_i16x32 =
          kZeroPoints ? split_zero_point(params.row_zero_point[i]) : _mm512_setzero_si512();
      const __m512 row_scale_f32x16 = _mm512_set1_ps(kRowScale ? params.row_scale[i] : 1.f);
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const __m512i acc_i32x16 = _mm512_loadu_si512(acc + 16 * k);
        const __m512i sum_i32x16 =
            kZeroPoints
                ? _mm512_sub_epi32(acc_i32x16, _mm512_madd_epi16(added_i32x16[k], point_i16x32))
                : _mm512_add_epi32(acc_i32x16, added_i32x16[k]);
        __m512 y_f32x16 = _mm512_mul_ps(_mm512_cvtepi32_ps(sum_i32x16), scale_f32x16[k]);
        if (kRowScale) y_f32x16 = _mm512_mul_ps(y_f32x16, row_scale_f32x16);
        y_f32x16 = _mm512_add_ps(y_f32x16, float_bias_f32x16[k]);
        if (residual != nullptr)
          y_f32x16 = _mm512_add_ps(y_f32x16, _mm512_loadu_ps(residual + 16 * k));
        if (kClamp) y_f32x16 = clamped(y_f32x16, min_f32x16, max_f32x16);
        _mm512_storeu_ps(dst + 16 * k, y_f32x16);
      }
      if (residual != nullptr) residual += params.residual_stride;
    }
  }
  return j;
}
template <bool kClamp>
inline size_t wide_floats(const EpilogueS8Params& params) {
  if (params.row_zero_point != nullptr && params.row_scale != nullptr)
    return wide_rows<true, true, kClamp>(params);
  if (params.row_zero_point != nullptr) return wide_rows<true, false, kClamp>(params);
  if (params.row_scale != nullptr) return wide_rows<false, true, kClamp>(params);
  return wide_rows<false, false, kClamp>(params);
}

}  // namespace

void epilogue_s8_f32_avx512(const EpilogueS8Params& shared) {
  const EpilogueS8Params params = shared;
  const bool clamps = params.min > -__builtin_inff() || params.max < __builtin_inff();
  size_t j = 0;
  if (params.n >= 64 && has_split_sums(params))
    j = clamps ? wide_floats<true>(params) : wide_floats<false>(params);
  for (; j < params.n; j += 16) narrow_rows(params, j);
}

}  // namespace lepton
