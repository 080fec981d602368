// Floats to bytes, for the AVX-512 kernels. Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

// v / divisor.
struct Divider {
  explicit Divider(float divisor) : divisor_f32x16(_mm512_set1_ps(divisor)) {}
  __m512 operator()(__m512 v) const { return _mm512_div_ps(v, divisor_f32x16); }
  __m512 divisor_f32x16;
};

// The same bits from the correctly rounded reciprocal and what it lacks, as in
// epilogue_s8_avx512.cc, of a divisor that is neither so large nor so small that a product loses
// bits: remainders too small to be normal belong to quotients that round to 0. A quotient that
// overflows comes out as NaN.
struct ReciprocalDivider {
  explicit ReciprocalDivider(float divisor)
      : divisor_f32x16(_mm512_set1_ps(divisor)),
        reciprocal_f32x16(_mm512_set1_ps(1.f / divisor)),
        rest_f32x16(_mm512_set1_ps(static_cast<float>(1. / divisor - 1.f / divisor))) {}
  __m512 operator()(__m512 v) const {
    const __m512 q_f32x16 = _mm512_fmadd_ps(v, reciprocal_f32x16, _mm512_mul_ps(v, rest_f32x16));
    const __m512 off_f32x16 = _mm512_fnmadd_ps(q_f32x16, divisor_f32x16, v);
    return _mm512_fmadd_ps(off_f32x16, reciprocal_f32x16, q_f32x16);
  }
  __m512 divisor_f32x16, reciprocal_f32x16, rest_f32x16;
};
inline bool is_moderate(float divisor) { return divisor > 0x1p-40f && divisor < 0x1p40f; }

// 64 bytes from four vectors of quotients. Packing with saturation is the clamp; what is NaN or too
// small becomes the least integer, and so must nothing that is too large.
class Packer {
 public:
  explicit Packer(int32_t zero_point)
      : zero_point_i16x32_(_mm512_set1_epi16(static_cast<int16_t>(zero_point))),
        order_i32x16_(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)) {}
  template <bool kSigned>
  __m512i pack(__m512 a, __m512 b, __m512 c, __m512 d) const {
    const __m512i first_i16x32 = biased(a, b), last_i16x32 = biased(c, d);
    const __m512i bytes_i8x64 = kSigned ? _mm512_packs_epi16(first_i16x32, last_i16x32)
                                        : _mm512_packus_epi16(first_i16x32, last_i16x32);
    return _mm512_permutexvar_epi32(order_i32x16_, bytes_i8x64);  // packs work within 128 bits
  }

 private:
  __m512i biased(__m512 a, __m512 b) const {
    const __m512i q_i16x32 = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    return _mm512_adds_epi16(q_i16x32, zero_point_i16x32_);
  }
  __m512i zero_point_i16x32_, order_i32x16_;
};

// store(at, mask, a, b, c, d): 64 floats of x from `at` on, or the first of them and zeros.
template <typename Store>
inline void for_each_64(const float* x, size_t n, const Store& store) {
  size_t i = 0;
  for (; i + 64 <= n; i += 64)
    store(i, ~__mmask64{0}, _mm512_loadu_ps(x + i), _mm512_loadu_ps(x + i + 16),
          _mm512_loadu_ps(x + i + 32), _mm512_loadu_ps(x + i + 48));
  if (i == n) return;
  const __mmask64 mask = (__mmask64{1} << (n - i)) - 1;
  const auto some = [&](size_t at) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> at), x + i + at);
  };
  store(i, mask, some(0), some(16), some(32), some(48));
}

}  // namespace
}  // namespace lepton
