// Thirty-two bytes a step; a row's last bytes are a step that overlaps the one before it, because
// src ends where the row ends. Rows shorter than a step take two overlapping steps of the largest
// power of two that fits. Bound by the loads and stores.
#include <immintrin.h>

#include "ops/copy_u8.h"

namespace lepton {
namespace {

inline void copy_32(const uint8_t* src, __m256i flip_i8x32, uint8_t* dst) {
  const __m256i bytes_i8x32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm256_xor_si256(bytes_i8x32, flip_i8x32));
}

inline void copy_16(const uint8_t* src, __m256i flip_i8x32, uint8_t* dst) {
  const __m128i bytes_i8x16 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(dst),
                   _mm_xor_si128(bytes_i8x16, _mm256_castsi256_si128(flip_i8x32)));
}

// Word: 8 or 4 bytes.
template <typename Word>
inline void copy_word(const uint8_t* src, uint64_t flip, uint8_t* dst) {
  Word bytes;
  __builtin_memcpy(&bytes, src, sizeof(Word));
  bytes ^= static_cast<Word>(flip);
  __builtin_memcpy(dst, &bytes, sizeof(Word));
}

inline void copy_row(const uint8_t* src, size_t k, __m256i flip_i8x32, uint64_t flip,
                     uint8_t* dst) {
  if (k >= 32) {
    for (size_t p = 0; p + 32 <= k; p += 32) copy_32(src + p, flip_i8x32, dst + p);
    copy_32(src + k - 32, flip_i8x32, dst + k - 32);
  } else if (k >= 16) {
    copy_16(src, flip_i8x32, dst);
    copy_16(src + k - 16, flip_i8x32, dst + k - 16);
  } else if (k >= 8) {
    copy_word<uint64_t>(src, flip, dst);
    copy_word<uint64_t>(src + k - 8, flip, dst + k - 8);
  } else if (k >= 4) {
    copy_word<uint32_t>(src, flip, dst);
    copy_word<uint32_t>(src + k - 4, flip, dst + k - 4);
  } else {
    for (size_t p = 0; p < k; ++p) dst[p] = static_cast<uint8_t>(src[p] ^ flip);
  }
}

}  // namespace

void copy_u8_avx2(const CopyU8Params& shared) {
  const CopyU8Params params = shared;
  const __m256i flip_i8x32 = _mm256_set1_epi8(static_cast<char>(params.flip));
  const uint64_t flip = params.flip * 0x0101010101010101u;
  for (size_t i = 0; i < params.m; ++i) {
    uint8_t* dst = params.dst + i * params.dst_stride;
    copy_row(params.src + i * params.src_stride, params.k, flip_i8x32, flip, dst);
    for (size_t p = params.k; p < params.k_padded; ++p) dst[p] = 0;
  }
}

}  // namespace lepton
