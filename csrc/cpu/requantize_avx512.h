// The last part of requantising with AVX-512: scaled sums to bytes, as epilogue.h defines it.
// Included by kernel files only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

// Whether lo and hi are the bounds of their type, where packing to bytes saturates by itself.
inline bool is_whole_range(int32_t lo, int32_t hi) { return hi - lo == 255; }

// Whether no int32 times one of these scales, nor with a residual's byte after it, leaves int32:
// |scale| <= 1/2, a NaN is not.
template <size_t kCount>
inline bool are_moderate(const __m512 (&scale)[kCount]) {
  const __m512 half_f32x16 = _mm512_set1_ps(0.5f);
  unsigned moderate = 0xffff;
#pragma GCC unroll 4
  for (size_t k = 0; k < kCount; ++k)
    moderate &= _mm512_cmp_ps_mask(_mm512_abs_ps(scale[k]), half_f32x16, _CMP_LE_OQ);
  return moderate == 0xffff;
}

// The same of a residual's scale: its bytes, at most 255 from their zero point, stay below 2^29.
inline bool is_moderate_residual(float scale) { return scale >= -0x1p20f && scale <= 0x1p20f; }

// Four registers to bytes, one after another: clamp(rint(v) + zero_point, lo, hi). Not kGuarded:
// for values that fit int32 and bounds that are those of the type.
template <bool kGuarded>
class Bytes {
 public:
  Bytes(int32_t zero_point, int32_t lo, int32_t hi)
      : zero_point_i16x32_(_mm512_set1_epi16(static_cast<int16_t>(zero_point))),
        lo_i8x64_(_mm512_set1_epi8(static_cast<char>(lo))),
        hi_i8x64_(_mm512_set1_epi8(static_cast<char>(hi))),
        order_i32x16_(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
        signed_(lo < 0) {}

  __attribute__((always_inline)) __m512i operator()(const __m512 (&v)[4]) const {
    const __m512i first_i16x32 = biased(v[0], v[1]), last_i16x32 = biased(v[2], v[3]);
    __m512i bytes_i8x64 = signed_ ? _mm512_packs_epi16(first_i16x32, last_i16x32)
                                  : _mm512_packus_epi16(first_i16x32, last_i16x32);
    // Packing works within 128 bits.
    bytes_i8x64 = _mm512_permutexvar_epi32(order_i32x16_, bytes_i8x64);
    if (!kGuarded) return bytes_i8x64;
    if (signed_) return _mm512_min_epi8(_mm512_max_epi8(bytes_i8x64, lo_i8x64_), hi_i8x64_);
    return _mm512_min_epu8(_mm512_max_epu8(bytes_i8x64, lo_i8x64_), hi_i8x64_);
  }

 private:
  // What is too large saturates here, what is too small becomes the least int32, and so does NaN:
  // all of them end at a bound. Constant first: min then passes a NaN through.
  static __m512i rounded(__m512 v_f32x16) {
    if (kGuarded) v_f32x16 = _mm512_min_ps(_mm512_set1_ps(65536.f), v_f32x16);
    return _mm512_cvtps_epi32(v_f32x16);
  }
  __m512i biased(__m512 first_f32x16, __m512 last_f32x16) const {
    return _mm512_adds_epi16(_mm512_packs_epi32(rounded(first_f32x16), rounded(last_f32x16)),
                             zero_point_i16x32_);
  }

  __m512i zero_point_i16x32_, lo_i8x64_, hi_i8x64_, order_i32x16_;
  bool signed_;
};

}  // namespace
}  // namespace lepton
