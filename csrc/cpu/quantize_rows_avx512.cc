// Sixteen floats at a time, the last ones through masked loads, as in quantize_rows_avx2.cc: a pass
// for the range, with four extremes side by side to hide the latency of their comparisons, and a
// pass for the integers, whose quotients come from multiplications (exact, as in
// epilogue_s8_avx512.cc). The row is in L1 for the second pass; bound by arithmetic.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/quantize_rows.h"

namespace lepton {
namespace {

inline __mmask16 mask_of(size_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1);
}

struct Range {
  __m512 low_f32x16 = _mm512_setzero_ps(), high_f32x16 = _mm512_setzero_ps();
  __m512 odd_f32x16 = _mm512_setzero_ps();  // x − x: zero unless NaN or infinite
  void take(__m512 x_f32x16) {
    low_f32x16 = _mm512_min_ps(x_f32x16, low_f32x16);
    high_f32x16 = _mm512_max_ps(x_f32x16, high_f32x16);
    odd_f32x16 = _mm512_add_ps(odd_f32x16, _mm512_sub_ps(x_f32x16, x_f32x16));
  }
  void take(const Range& other) {
    low_f32x16 = _mm512_min_ps(other.low_f32x16, low_f32x16);
    high_f32x16 = _mm512_max_ps(other.high_f32x16, high_f32x16);
    odd_f32x16 = _mm512_add_ps(odd_f32x16, other.odd_f32x16);
  }
  bool finite() const { return _mm512_cmp_ps_mask(odd_f32x16, odd_f32x16, _CMP_EQ_OQ) == 0xffff; }
};

struct Quantization {
  float scale, zero_point;
};

// A scale of NaN: a value is not finite.
Quantization range_of(const float* x, size_t k) {
  Range a, b, c, d;
  size_t p = 0;
  for (; p + 64 <= k; p += 64) {
    a.take(_mm512_loadu_ps(x + p));
    b.take(_mm512_loadu_ps(x + p + 16));
    c.take(_mm512_loadu_ps(x + p + 32));
    d.take(_mm512_loadu_ps(x + p + 48));
  }
  for (; p < k; p += 16) a.take(_mm512_maskz_loadu_ps(mask_of(k - p), x + p));
  a.take(b), c.take(d), a.take(c);
  if (!a.finite()) return {__builtin_nanf(""), 0.f};
  const float low = _mm512_reduce_min_ps(a.low_f32x16);
  const float high = _mm512_reduce_max_ps(a.high_f32x16);
  float scale = high / 255.f - low / 255.f;
  if (!(scale > 0.f)) scale = 1.f;
  const float zero_point =
      _mm_cvtss_f32(_mm_round_ss(_mm_setzero_ps(), _mm_set_ss(-low / scale), 8));
  return {scale, zero_point > 255.f ? 255.f : zero_point};
}

struct Divider {
  __m512 divisor_f32x16;
  __m512 operator()(__m512 v) const { return _mm512_div_ps(v, divisor_f32x16); }
};

// The same bits from the correctly rounded reciprocal (Markstein, IBM J. Res. Dev. 34(1), 1990) of
// a divisor that is neither so large nor so small that a product overflows or loses bits: the
// quotients are at most 255, and remainders too small to be normal belong to those that round to 0.
struct ReciprocalDivider {
  __m512 divisor_f32x16, reciprocal_f32x16;
  __m512 corrected(__m512 q, __m512 v) const {
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, divisor_f32x16, v), reciprocal_f32x16, q);
  }
  __m512 operator()(__m512 v) const {
    return corrected(corrected(_mm512_mul_ps(v, reciprocal_f32x16), v), v);
  }
};

template <typename Divide>
inline void quantize(const float* x, size_t k, float zero_point, const Divide& divide,
                     uint8_t* dst) {
  const __m512 zero_point_f32x16 = _mm512_set1_ps(zero_point), max_f32x16 = _mm512_set1_ps(255.f);
  for (size_t p = 0; p < k; p += 16) {
    const __mmask16 mask = mask_of(k - p);
    const __m512 x_f32x16 = _mm512_maskz_loadu_ps(mask, x + p);
    __m512 q_f32x16 = _mm512_roundscale_ps(divide(x_f32x16), 8);
    q_f32x16 = _mm512_add_ps(q_f32x16, zero_point_f32x16);
    q_f32x16 = _mm512_min_ps(_mm512_max_ps(q_f32x16, _mm512_setzero_ps()), max_f32x16);
    _mm_mask_storeu_epi8(dst + p, mask, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(q_f32x16)));
  }
}

}  // namespace

float quantize_row_u8_avx512(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                             int32_t* zero_point) {
  const Quantization by = range_of(x, k);
  *zero_point = static_cast<int32_t>(by.zero_point);
  const size_t valid = by.scale == by.scale ? k : 0;
  const __m512 scale_f32x16 = _mm512_set1_ps(by.scale);
  if (by.scale > 0x1p-40f && by.scale < 0x1p40f)
    quantize(x, valid, by.zero_point,
             ReciprocalDivider{scale_f32x16, _mm512_set1_ps(1.f / by.scale)}, dst);
  else
    quantize(x, valid, by.zero_point, Divider{scale_f32x16}, dst);
  for (size_t p = valid; p < k_padded; ++p) dst[p] = 0;
  return by.scale;
}

}  // namespace lepton
