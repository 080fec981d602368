// A step of the tiles on AVX512-VNNI: one quad of p of every row times those of all columns.
// Included by their files only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/unrolled.h"

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
__attribute__((always_inline)) inline void step(const Row& row, const int8_t* rhs,
                                                __m512i (&sum)[kRows][kVectors]) {
  __m512i rhs_i8x64[kVectors];
  for_each_index<kVectors>([&](auto v) __attribute__((always_inline)) {
    rhs_i8x64[v] = _mm512_load_si512(rhs + v * kNv * kKr);
    pin(rhs_i8x64[v]);
  });
  for_each_index<kRows>([&](auto i) __attribute__((always_inline)) {
    const __m512i lhs_u8x64 = broadcast_quad(row(i));
    for_each_index<kVectors>([&](auto v) __attribute__((always_inline)) {
      sum[i][v] = _mm512_dpbusd_epi32(sum[i][v], lhs_u8x64, rhs_i8x64[v]);
      pin(sum[i][v]);
    });
  });
}

}  // namespace
}  // namespace lepton
