// A step of the tiles on AVX512-VNNI: one quad of p of every row times those of all columns.
// Included by their files only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lepton {
namespace {

constexpr size_t kNv = 16, kKr = 4;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators.
inline void pin(__m512i& v) { asm volatile("" : "+v"(v)); }

inline __m512i broadcast_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

// row(i): where row i's quad is.
template <size_t kRows, size_t kVectors, typename Row>
inline void step(const Row& row, const int8_t* rhs, __m512i (&sum)[kRows][kVectors]) {
  __m512i rhs_i8x64[kVectors];
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; ++v) {
    rhs_i8x64[v] = _mm512_load_si512(rhs + v * kNv * kKr);
    pin(rhs_i8x64[v]);
  }
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const __m512i lhs_u8x64 = broadcast_quad(row(i));
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = _mm512_dpbusd_epi32(sum[i][v], lhs_u8x64, rhs_i8x64[v]);
      pin(sum[i][v]);
    }
  }
}

}  // namespace
}  // namespace lepton
