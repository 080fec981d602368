// Sixteen bytes a step: sign- or zero-extend, subtract, store 32 bytes. Bound by the store. A row's
// last bytes are a step that overlaps the one before it, because src ends where the row ends; short
// rows (a few pixels of an image) take two overlapping steps of eight or four.
#include <immintrin.h>

#include "ops/widen_s8.h"

namespace lepton {
namespace {

template <bool kSigned>
inline __m256i extend(const uint8_t* src) {
  const __m128i bytes_i8x16 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
  return kSigned ? _mm256_cvtepi8_epi16(bytes_i8x16) : _mm256_cvtepu8_epi16(bytes_i8x16);
}

template <bool kSigned>
inline void widen_8(const uint8_t* src, __m256i zero_point_i16x16, int16_t* dst) {
  const __m128i bytes_i8x16 = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(src));
  const __m128i wide_i16x8 =
      kSigned ? _mm_cvtepi8_epi16(bytes_i8x16) : _mm_cvtepu8_epi16(bytes_i8x16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(dst),
                   _mm_sub_epi16(wide_i16x8, _mm256_castsi256_si128(zero_point_i16x16)));
}

template <bool kSigned>
inline void widen_4(const uint8_t* src, __m256i zero_point_i16x16, int16_t* dst) {
  int32_t bytes;
  __builtin_memcpy(&bytes, src, sizeof(bytes));
  const __m128i bytes_i8x4 = _mm_cvtsi32_si128(bytes);
  const __m128i wide_i16x4 =
      kSigned ? _mm_cvtepi8_epi16(bytes_i8x4) : _mm_cvtepu8_epi16(bytes_i8x4);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(dst),
                   _mm_sub_epi16(wide_i16x4, _mm256_castsi256_si128(zero_point_i16x16)));
}

template <bool kSigned>
inline void widen_16(const uint8_t* src, __m256i zero_point_i16x16, int16_t* dst) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst),
                      _mm256_sub_epi16(extend<kSigned>(src), zero_point_i16x16));
}

template <bool kSigned>
void widen(const WidenS8Params& params) {
  const __m256i zero_point_i16x16 = _mm256_set1_epi16(static_cast<int16_t>(params.zero_point));
  for (size_t i = 0; i < params.m; ++i) {
    const uint8_t* src = static_cast<const uint8_t*>(params.src) + i * params.src_stride;
    int16_t* dst = params.dst + i * params.dst_stride;
    size_t p = 0;
    for (; p + 16 <= params.k; p += 16) widen_16<kSigned>(src + p, zero_point_i16x16, dst + p);
    if (p < params.k && params.k >= 16) {
      p = params.k;
      widen_16<kSigned>(src + p - 16, zero_point_i16x16, dst + p - 16);
    } else if (params.k - p >= 8) {
      p = params.k;
      widen_8<kSigned>(src, zero_point_i16x16, dst);
      widen_8<kSigned>(src + p - 8, zero_point_i16x16, dst + p - 8);
    } else if (params.k - p >= 4) {
      p = params.k;
      widen_4<kSigned>(src, zero_point_i16x16, dst);
      widen_4<kSigned>(src + p - 4, zero_point_i16x16, dst + p - 4);
    }
    for (; p < params.k; ++p) {
      const int value = kSigned ? static_cast<int8_t>(src[p]) : src[p];
      dst[p] = static_cast<int16_t>(value - params.zero_point);
    }
    for (; p < params.k_padded; ++p) dst[p] = 0;
  }
}

}  // namespace

void widen_s8_avx2(const WidenS8Params& params) {
  params.src_signed ? widen<true>(params) : widen<false>(params);
}

}  // namespace lepton
