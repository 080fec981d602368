// A step of the tiles over quads whose pairs were proved to fit 16 bits: one quad of p of every row
// times those of all columns, straight from memory. Included by their files only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/unrolled.h"

namespace lepton {
namespace {

constexpr size_t kNv = 8, kKr = 4;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

inline __m256i broadcast_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

inline __m256i load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }

template <size_t kRows, size_t kVectors>
__attribute__((always_inline)) inline void step(const uint8_t* lhs, size_t stride,
                                                const int8_t* rhs, __m256i ones_i16x16,
                                                __m256i (&sum)[kRows][kVectors]) {
  for_each_index<kRows>([&](auto i) __attribute__((always_inline)) {
    const __m256i lhs_u8x32 = broadcast_quad(lhs + i * stride);
    for_each_index<kVectors>([&](auto v) __attribute__((always_inline)) {
      const __m256i pairs_i16x16 = _mm256_maddubs_epi16(lhs_u8x32, load(rhs + v * kNv * kKr));
      sum[i][v] = _mm256_add_epi32(sum[i][v], _mm256_madd_epi16(pairs_i16x16, ones_i16x16));
      pin(sum[i][v]);
    });
  });
}

}  // namespace
}  // namespace lepton
