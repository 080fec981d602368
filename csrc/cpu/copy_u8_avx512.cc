// Sixty-four bytes a step, the last of a row through masks, which also write the padding. Bound by
// the loads and stores. Masked stores are slow to be read again, so rows of a few pixels of an
// image take two overlapping steps of half a row or more.
#include <immintrin.h>

#include "ops/copy_u8.h"

namespace lepton {
namespace {

// The first `count` of 64 lanes.
inline __mmask64 mask_of(size_t count) {
  return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
}

inline uint32_t flipped(uint32_t bytes, __m512i flip) {
  return bytes ^ static_cast<uint32_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(flip)));
}
inline uint64_t flipped(uint64_t bytes, __m512i flip) {
  return bytes ^ static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(flip)));
}
inline __m128i flipped(__m128i bytes, __m512i flip) {
  return _mm_xor_si128(bytes, _mm512_castsi512_si128(flip));
}
inline __m256i flipped(__m256i bytes, __m512i flip) {
  return _mm256_xor_si256(bytes, _mm512_castsi512_si256(flip));
}

// Rows of sizeof(Word) to twice as many bytes; Word: 4 to 32 bytes.
template <typename Word>
inline void copy_short(const CopyU8Params& params) {
  const __m512i flip_i8x64 = _mm512_set1_epi8(static_cast<char>(params.flip));
  const size_t last = params.k - sizeof(Word);
  for (size_t i = 0; i < params.m; ++i) {
    const uint8_t* src = params.src + i * params.src_stride;
    uint8_t* dst = params.dst + i * params.dst_stride;
    Word first_bytes, last_bytes;
    __builtin_memcpy(&first_bytes, src, sizeof(Word));
    __builtin_memcpy(&last_bytes, src + last, sizeof(Word));
    first_bytes = flipped(first_bytes, flip_i8x64);
    last_bytes = flipped(last_bytes, flip_i8x64);
    __builtin_memcpy(dst, &first_bytes, sizeof(Word));
    __builtin_memcpy(dst + last, &last_bytes, sizeof(Word));
    for (size_t p = params.k; p < params.k_padded; ++p) dst[p] = 0;
  }
}

}  // namespace

void copy_u8_avx512(const CopyU8Params& shared) {
  const CopyU8Params params = shared;
  if (params.k >= 4 && params.k < 8) return copy_short<uint32_t>(params);
  if (params.k >= 8 && params.k < 16) return copy_short<uint64_t>(params);
  if (params.k >= 16 && params.k < 32) return copy_short<__m128i>(params);
  if (params.k >= 32 && params.k < 64) return copy_short<__m256i>(params);
  const __m512i flip_i8x64 = _mm512_set1_epi8(static_cast<char>(params.flip));
  for (size_t i = 0; i < params.m; ++i) {
    const uint8_t* src = params.src + i * params.src_stride;
    uint8_t* dst = params.dst + i * params.dst_stride;
    size_t p = 0;
    for (; p + 64 <= params.k; p += 64)
      _mm512_storeu_si512(dst + p, _mm512_xor_si512(_mm512_loadu_si512(src + p), flip_i8x64));
    for (; p < params.k_padded; p += 64) {
      const __mmask64 inside = mask_of(p < params.k ? params.k - p : 0);
      const __m512i bytes_i8x64 = _mm512_maskz_loadu_epi8(inside, src + p);
      const __m512i flipped_i8x64 =
          _mm512_maskz_mov_epi8(inside, _mm512_xor_si512(bytes_i8x64, flip_i8x64));
      _mm512_mask_storeu_epi8(dst + p, mask_of(params.k_padded - p), flipped_i8x64);
    }
  }
}

}  // namespace lepton
