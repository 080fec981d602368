// Floats to bytes, for the AVX2 kernels: quantize_avx512.h on eight lanes. Internal linkage
// throughout.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/divide_avx2.h"

namespace lepton {
namespace {

// Of divisors by which ReciprocalDivider gives Divider's bits.
inline bool is_moderate(float divisor) { return divisor > 0x1p-40f && divisor < 0x1p40f; }

// Quotients to integers; what is NaN or too small becomes the least one, and so must nothing that
// is too large.
class Packer {
 public:
  explicit Packer(int32_t zero_point)
      : zero_point_i16x16_(_mm256_set1_epi16(static_cast<int16_t>(zero_point))) {}

  // Sixteen, saturated; packs work within 128 bits: in the order 0 … 3, 8 … 11, 4 … 7, 12 … 15.
  __m256i biased(__m256 a, __m256 b) const {
    const __m256i q_i16x16 = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    return _mm256_adds_epi16(q_i16x16, zero_point_i16x16_);
  }
  // 32 bytes, in order.
  template <bool kSigned>
  __m256i pack(__m256 a, __m256 b, __m256 c, __m256 d) const {
    const __m256i first_i16x16 = biased(a, b), last_i16x16 = biased(c, d);
    const __m256i bytes_i8x32 = kSigned ? _mm256_packs_epi16(first_i16x16, last_i16x16)
                                        : _mm256_packus_epi16(first_i16x16, last_i16x16);
    const __m256i order_i32x8 = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(bytes_i8x32, order_i32x8);
  }
  __m256i zero_points() const { return zero_point_i16x16_; }

 private:
  __m256i zero_point_i16x16_;
};

}  // namespace
}  // namespace lepton
