// Eight floats at a time, the last ones through masked loads: a pass for the range, a pass for the
// integers, which keeps the order of operations of the scalar code. The row is in L1 for the second
// pass; bound by the divisions.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/quantize_rows.h"

namespace lepton {
namespace {

inline __m256i mask_of(size_t count) {
  const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane_i32x8);
}

inline float min_lane(__m256 v) {
  __m128 s = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_min_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}

struct Range {
  __m256 low_f32x8 = _mm256_setzero_ps(), high_f32x8 = _mm256_setzero_ps();
  __m256 odd_f32x8 = _mm256_setzero_ps();  // x − x: zero unless NaN or infinite
  void take(__m256 x_f32x8) {
    low_f32x8 = _mm256_min_ps(x_f32x8, low_f32x8);
    high_f32x8 = _mm256_max_ps(x_f32x8, high_f32x8);
    odd_f32x8 = _mm256_add_ps(odd_f32x8, _mm256_sub_ps(x_f32x8, x_f32x8));
  }
  bool finite() const {
    const __m256 same_f32x8 = _mm256_cmp_ps(odd_f32x8, odd_f32x8, _CMP_EQ_OQ);
    return _mm256_movemask_ps(same_f32x8) == 0xff;
  }
};

struct Quantization {
  float scale, zero_point;
};

// A scale of NaN: a value is not finite.
Quantization range_of(const float* x, size_t k) {
  Range range;
  size_t p = 0;
  for (; p + 8 <= k; p += 8) range.take(_mm256_loadu_ps(x + p));
  if (p < k) range.take(_mm256_maskload_ps(x + p, mask_of(k - p)));
  if (!range.finite()) return {__builtin_nanf(""), 0.f};
  const float low = min_lane(range.low_f32x8);
  const float high = -min_lane(_mm256_xor_ps(range.high_f32x8, _mm256_set1_ps(-0.0f)));
  float scale = high / 255.f - low / 255.f;
  if (!(scale > 0.f)) scale = 1.f;
  const float zero_point =
      _mm_cvtss_f32(_mm_round_ss(_mm_setzero_ps(), _mm_set_ss(-low / scale), 8));
  return {scale, zero_point > 255.f ? 255.f : zero_point};
}

// Eight values as q − offset in int16, or in the low half as uint8.
struct Quantizer {
  __m256 scale_f32x8, zero_point_f32x8, offset_f32x8;
  __m128i operator()(__m256 x_f32x8, int16_t) const {
    const __m256 max_f32x8 = _mm256_set1_ps(255.f);
    __m256 q_f32x8 = _mm256_round_ps(_mm256_div_ps(x_f32x8, scale_f32x8), 8);
    q_f32x8 = _mm256_add_ps(q_f32x8, zero_point_f32x8);
    q_f32x8 = _mm256_min_ps(_mm256_max_ps(q_f32x8, _mm256_setzero_ps()), max_f32x8);
    const __m256i q_i32x8 = _mm256_cvtps_epi32(_mm256_sub_ps(q_f32x8, offset_f32x8));
    return _mm_packs_epi32(_mm256_castsi256_si128(q_i32x8), _mm256_extracti128_si256(q_i32x8, 1));
  }
  __m128i operator()(__m256 x_f32x8, uint8_t) const {
    const __m128i q_i16x8 = (*this)(x_f32x8, int16_t{});
    return _mm_packus_epi16(q_i16x8, q_i16x8);
  }
};

inline void store(int16_t* dst, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), v); }
inline void store(uint8_t* dst, __m128i v) { _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), v); }

template <typename Element>
void quantize(const float* x, size_t k, size_t k_padded, const Quantization& by, float offset,
              Element* dst) {
  const bool finite = by.scale == by.scale;
  for (size_t i = finite ? k : 0; i < k_padded; ++i) dst[i] = 0;
  if (!finite) return;
  const Quantizer quantizer = {_mm256_set1_ps(by.scale), _mm256_set1_ps(by.zero_point),
                               _mm256_set1_ps(offset)};
  size_t p = 0;
  for (; p + 8 <= k; p += 8) store(dst + p, quantizer(_mm256_loadu_ps(x + p), Element{}));
  if (p == k) return;
  Element last[8];
  store(last, quantizer(_mm256_maskload_ps(x + p, mask_of(k - p)), Element{}));
  for (size_t i = p; i < k; ++i) dst[i] = last[i - p];
}

}  // namespace

float quantize_row_i16_avx2(const float* x, size_t k, size_t k_padded, int16_t* dst) {
  const Quantization by = range_of(x, k);
  quantize(x, k, k_padded, by, by.zero_point, dst);
  return by.scale;
}

float quantize_row_u8_avx2(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                           int32_t* zero_point) {
  const Quantization by = range_of(x, k);
  quantize(x, k, k_padded, by, 0.f, dst);
  *zero_point = static_cast<int32_t>(by.zero_point);
  return by.scale;
}

}  // namespace lepton
