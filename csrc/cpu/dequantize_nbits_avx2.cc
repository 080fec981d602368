// Eight columns a register: bytes are widened to int32, halves split by a mask and a shift, then
// one subtraction and one product. Scales and zero points of the group stay in registers. Eight
// bytes of 4-bit weights make sixteen floats, so the limit is the stores.
#include <immintrin.h>

#include "ops/dequantize_nbits.h"

namespace lepton {
namespace {

// Eight columns of the group.
struct Columns {
  __m256 scale_f32x8, zero_f32x8;
  explicit Columns(const float* scale, const float* zero_point)
      : scale_f32x8(_mm256_loadu_ps(scale)), zero_f32x8(_mm256_loadu_ps(zero_point)) {}
  void store(float* dst, __m256i q_i32x8) const {
    const __m256 q_f32x8 = _mm256_cvtepi32_ps(q_i32x8);
    _mm256_store_ps(dst, _mm256_mul_ps(_mm256_sub_ps(q_f32x8, zero_f32x8), scale_f32x8));
  }
};

inline __m256i widen(const uint8_t* src) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(src)));
}

void rows_of_16(const DequantizeNBitsParams& params) {
  const Columns left(params.scale, params.zero_point);
  const Columns right(params.scale + 8, params.zero_point + 8);
  const __m256i mask_i32x8 = _mm256_set1_epi32(15);
  const uint8_t* src = params.src;
  float* dst = params.dst;
  if (params.bits == 8) {
    for (size_t p = 0; p < params.rows; ++p, src += 16, dst += 16) {
      left.store(dst, widen(src));
      right.store(dst + 8, widen(src + 8));
    }
    return;
  }
  for (size_t p = 0; p < params.rows; ++p, src += 8, dst += 16) {
    const __m256i both_i32x8 = widen(src);
    left.store(dst, _mm256_and_si256(both_i32x8, mask_i32x8));
    right.store(dst + 8, _mm256_srli_epi32(both_i32x8, 4));
  }
}

void rows_of_8(const DequantizeNBitsParams& params) {
  const Columns columns(params.scale, params.zero_point);
  const size_t row_bytes = params.bits;
  for (size_t p = 0; p < params.rows; ++p) {
    const uint8_t* const src = params.src + p * row_bytes;
    float* const dst = params.dst + p * 8;
    if (params.bits == 8) {
      columns.store(dst, widen(src));
      continue;
    }
    columns.store(dst, _mm256_setr_epi32(src[0] & 15, src[1] & 15, src[2] & 15, src[3] & 15,
                                         src[0] >> 4, src[1] >> 4, src[2] >> 4, src[3] >> 4));
  }
}

}  // namespace

void dequantize_nbits_avx2(const DequantizeNBitsParams& params) {
  params.nr == 16 ? rows_of_16(params) : rows_of_8(params);
}

}  // namespace lepton
