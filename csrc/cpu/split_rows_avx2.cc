// Eight floats at a time, the last ones through masked loads: a pass over the group for the
// largest, a pass for the integers. Adding 128 to every digit makes the bytes of an integer its
// digits plus 128; a byte shuffle gathers those of four elements. The group is in L1 for the second
// pass; bound by vector issue, two instructions an element.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ops/split_rows.h"

namespace lepton {
namespace {

inline __m256i mask_of(size_t count) {
  const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane_i32x8);
}

// Elements [p, p + 8) of the group as bits, NaN, infinities and what is beyond `rows` as zeros.
inline __m256i finite(__m256i x_u32x8) {
  const __m256i size_u32x8 = _mm256_and_si256(x_u32x8, _mm256_set1_epi32(0x7FFFFFFF));
  return _mm256_and_si256(x_u32x8, _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7F800000), size_u32x8));
}

inline __m256i load(const float* x, size_t p, size_t rows) {
  if (p + 8 <= rows) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + p));
  if (p >= rows) return _mm256_setzero_si256();
  return _mm256_castps_si256(_mm256_maskload_ps(x + p, mask_of(rows - p)));
}

inline float power_of_two(int exponent) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((exponent + 127) << 23)));
}

struct Factor {
  float factor, scale;
};

inline Factor factor_of(float largest, size_t digits) {
  if (digits == 1) return {largest < 0x1p-100f ? 0.f : 127.f / largest, largest / 127.f};
  const int bits = _mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(largest)));
  int exponent = 22 + 127 - (bits >> 23);
  if (exponent > 126) exponent = 126;
  if (largest * power_of_two(exponent) > 8355711.f) --exponent;
  return {power_of_two(exponent), power_of_two(-exponent)};
}

inline float largest_of(const float* x, size_t rows, bool* all_finite) {
  __m256i largest_i32x8 = _mm256_setzero_si256(), same_i32x8 = _mm256_set1_epi32(-1);
  for (size_t p = 0; p < rows; p += 8) {
    const __m256i x_u32x8 = load(x, p, rows);
    const __m256i finite_u32x8 = finite(x_u32x8);
    same_i32x8 = _mm256_and_si256(same_i32x8, _mm256_cmpeq_epi32(x_u32x8, finite_u32x8));
    // Of floats that are not negative the bits compare as the floats do.
    largest_i32x8 = _mm256_max_epi32(largest_i32x8,
                                     _mm256_and_si256(finite_u32x8, _mm256_set1_epi32(0x7FFFFFFF)));
  }
  *all_finite = *all_finite && _mm256_movemask_epi8(same_i32x8) == -1;
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(largest_i32x8),
                            _mm256_extracti128_si256(largest_i32x8, 1));
  m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 1));
  return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

// Digits of the group; the sums of digit d in lane d.
template <size_t kDigits>
inline __m128i split(const SplitRowParams& params, const float* x, size_t rows, size_t padded,
                     float factor, int8_t* dst) {
  const __m256i offset_u8x32 = _mm256_set1_epi32(0x00808080);
  const __m256i order_u8x32 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15));
  const __m256 factor_f32x8 = _mm256_set1_ps(factor);
  __m256i sum_i32x8 = _mm256_setzero_si256();
  for (size_t p = 0; p < padded; p += 8, dst += params.dst_stride) {
    const __m256 x_f32x8 = _mm256_castsi256_ps(finite(load(x, p, rows)));
    __m256i v_i32x8 = _mm256_cvtps_epi32(_mm256_mul_ps(x_f32x8, factor_f32x8));
    v_i32x8 = _mm256_xor_si256(_mm256_add_epi32(v_i32x8, offset_u8x32), offset_u8x32);
    v_i32x8 = _mm256_shuffle_epi8(v_i32x8, order_u8x32);
    const __m256i pair_i16x16 = _mm256_maddubs_epi16(_mm256_set1_epi8(1), v_i32x8);
    sum_i32x8 = _mm256_add_epi32(sum_i32x8, _mm256_madd_epi16(pair_i16x16, _mm256_set1_epi16(1)));
    const __m128i low = _mm256_castsi256_si128(v_i32x8);
    const __m128i high = _mm256_extracti128_si256(v_i32x8, 1);
    const __m128i first = _mm_unpacklo_epi32(low, high);
    if (kDigits == 1) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), first);
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), first);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(dst + 16), _mm_unpackhi_epi32(low, high));
    }
  }
  return _mm_add_epi32(_mm256_castsi256_si128(sum_i32x8), _mm256_extracti128_si256(sum_i32x8, 1));
}

inline float joined(const int32_t* sum, size_t digits) {
  __m128 v = _mm_cvt_si2ss(_mm_setzero_ps(), sum[digits - 1]);
  for (size_t d = digits - 1; d-- > 0;)
    v = _mm_fmadd_ss(v, _mm_set_ss(256.f), _mm_cvt_si2ss(_mm_setzero_ps(), sum[d]));
  return _mm_cvtss_f32(v);
}

}  // namespace

bool split_row_avx2(const SplitRowParams& params) {
  bool all_finite = true;
  int8_t* dst = params.dst;
  for (size_t g = 0, p = 0; p < params.k; ++g, p += params.group) {
    const float* const x = params.x + p;
    const size_t rows = params.k - p < params.group ? params.k - p : params.group;
    const size_t padded = p + params.group < params.k ? params.padded_group : (rows + 7) / 8 * 8;
    const Factor by = factor_of(largest_of(x, rows, &all_finite), params.digits);
    alignas(16) int32_t sum[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(sum),
                    params.digits == 1 ? split<1>(params, x, rows, padded, by.factor, dst)
                                       : split<3>(params, x, rows, padded, by.factor, dst));
    for (size_t d = 0; d < params.digits; ++d)
      params.start[g * params.start_stride + d] = -params.offset * sum[d];
    params.scale[g * params.scale_stride] = by.scale;
    if (params.sum != nullptr) params.sum[g * params.scale_stride] = joined(sum, params.digits);
    dst += padded / 8 * params.dst_stride;
  }
  return all_finite;
}

}  // namespace lepton
