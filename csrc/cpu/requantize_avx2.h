// The last part of requantising with AVX2: scaled sums to bytes, as epilogue.h defines it. Included
// by kernel files only.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lepton {
namespace {

// Integers of eight columns, without their zero point. What is too large saturates here, what is
// too small becomes the least int32, and so does NaN: all of them end at a bound.
inline __m256i rounded(__m256 v_f32x8) {
  // Constant first: min then passes a NaN through.
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(65536.f), v_f32x8));
}

// Sixteen columns of two rows, or eight of four, to bytes: clamp(q + zero_point, lo, hi).
class Bytes {
 public:
  Bytes(int32_t zero_point, int32_t lo, int32_t hi)
      : zero_point_i16x16_(_mm256_set1_epi16(static_cast<int16_t>(zero_point))),
        lo_i8x32_(_mm256_set1_epi8(static_cast<char>(lo))),
        hi_i8x32_(_mm256_set1_epi8(static_cast<char>(hi))),
        order_i32x8_(_mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)),
        signed_(lo < 0) {}

  // The upper row's bytes in the lower half.
  __m256i operator()(__m256i upper_left, __m256i upper_right, __m256i lower_left,
                     __m256i lower_right) const {
    const __m256i upper_i16x16 = biased(upper_left, upper_right);
    const __m256i lower_i16x16 = biased(lower_left, lower_right);
    __m256i bytes_i8x32 = signed_ ? _mm256_packs_epi16(upper_i16x16, lower_i16x16)
                                  : _mm256_packus_epi16(upper_i16x16, lower_i16x16);
    // Packing works within 128 bits.
    bytes_i8x32 = _mm256_permutevar8x32_epi32(bytes_i8x32, order_i32x8_);
    if (signed_) return _mm256_min_epi8(_mm256_max_epi8(bytes_i8x32, lo_i8x32_), hi_i8x32_);
    return _mm256_min_epu8(_mm256_max_epu8(bytes_i8x32, lo_i8x32_), hi_i8x32_);
  }
  __m128i operator()(__m256i left, __m256i right) const {
    return _mm256_castsi256_si128((*this)(left, right, left, right));
  }

 private:
  __m256i biased(__m256i left_i32x8, __m256i right_i32x8) const {
    return _mm256_adds_epi16(_mm256_packs_epi32(left_i32x8, right_i32x8), zero_point_i16x16_);
  }

  __m256i zero_point_i16x16_, lo_i8x32_, hi_i8x32_, order_i32x8_;
  bool signed_;
};

}  // namespace
}  // namespace lepton
