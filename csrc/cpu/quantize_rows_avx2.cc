// 32 floats at a time, the last ones through masked loads: the two passes of
// quantize_rows_avx512.cc on eight lanes. Bound by arithmetic, eleven instructions for eight
// floats.
#include "cpu/quantize_avx2.h"
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
  __m256 odd_f32x8 = _mm256_setzero_ps();  // sum of x · 0: zero unless NaN or infinite
  void take(__m256 x_f32x8) {
    low_f32x8 = _mm256_min_ps(x_f32x8, low_f32x8);
    high_f32x8 = _mm256_max_ps(x_f32x8, high_f32x8);
    odd_f32x8 = _mm256_fmadd_ps(x_f32x8, _mm256_setzero_ps(), odd_f32x8);
  }
  void take(const Range& other) {
    low_f32x8 = _mm256_min_ps(other.low_f32x8, low_f32x8);
    high_f32x8 = _mm256_max_ps(other.high_f32x8, high_f32x8);
    odd_f32x8 = _mm256_add_ps(odd_f32x8, other.odd_f32x8);
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
  Range range, second, third, fourth;
  size_t p = 0;
  for (; p + 32 <= k; p += 32) {
    range.take(_mm256_loadu_ps(x + p));
    second.take(_mm256_loadu_ps(x + p + 8));
    third.take(_mm256_loadu_ps(x + p + 16));
    fourth.take(_mm256_loadu_ps(x + p + 24));
  }
  range.take(second), third.take(fourth), range.take(third);
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

// 32 quotients; they fit int16 by far.
inline void store(const Packer& packer, const __m256 (&q)[4], uint8_t* dst) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), packer.pack<false>(q[0], q[1], q[2], q[3]));
}
inline void store(const Packer& packer, const __m256 (&q)[4], int16_t* dst) {
  for (size_t i = 0; i < 4; i += 2, dst += 16) {
    const __m256i biased_i16x16 = packer.biased(q[i], q[i + 1]);
    __m256i q_i16x16 = _mm256_max_epi16(biased_i16x16, _mm256_setzero_si256());
    q_i16x16 = _mm256_min_epi16(q_i16x16, _mm256_set1_epi16(255));
    q_i16x16 = _mm256_sub_epi16(q_i16x16, packer.zero_points());
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm256_permute4x64_epi64(q_i16x16, 0xd8));
  }
}

template <typename Divide, typename Element>
void quantize(const float* x, size_t k, const Quantization& by, Element* dst) {
  const Divide divide(by.scale);
  const Packer packer(static_cast<int32_t>(by.zero_point));
  size_t p = 0;
  for (; p + 32 <= k; p += 32) {
    const auto q = [&](size_t i) { return divide(_mm256_loadu_ps(x + p + i)); };
    store(packer, {q(0), q(8), q(16), q(24)}, dst + p);
  }
  if (p == k) return;
  const auto some = [&](size_t i) {
    const size_t at = p + i;
    return at < k ? divide(_mm256_maskload_ps(x + at, mask_of(k - at))) : _mm256_setzero_ps();
  };
  Element last[32];
  store(packer, {some(0), some(8), some(16), some(24)}, last);
  for (size_t i = p; i < k; ++i) dst[i] = last[i - p];
}

template <typename Element>
void quantize_row(const float* x, size_t k, size_t k_padded, const Quantization& by, Element* dst) {
  const bool finite = by.scale == by.scale;
  for (size_t i = finite ? k : 0; i < k_padded; ++i) dst[i] = 0;
  if (!finite) return;
  if (is_moderate(by.scale))
    quantize<ReciprocalDivider>(x, k, by, dst);
  else
    quantize<Divider>(x, k, by, dst);
}

}  // namespace

float quantize_row_i16_avx2(const float* x, size_t k, size_t k_padded, int16_t* dst) {
  const Quantization by = range_of(x, k);
  quantize_row(x, k, k_padded, by, dst);
  return by.scale;
}

float quantize_row_u8_avx2(const float* x, size_t k, size_t k_padded, uint8_t* dst,
                           int32_t* zero_point) {
  const Quantization by = range_of(x, k);
  quantize_row(x, k, k_padded, by, dst);
  *zero_point = static_cast<int32_t>(by.zero_point);
  return by.scale;
}

}  // namespace lepton
