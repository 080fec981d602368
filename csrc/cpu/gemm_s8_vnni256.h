// A 6x16 tile over quads of p on 256 bits: vpdpbusd multiplies a broadcast quad of one lhs row with
// eight columns' quads, adds up each quad and accumulates. Twelve accumulators, two registers of
// rhs and one broadcast fill fifteen of sixteen registers. The limit is the pipes of vpdpbusd: two
// a cycle make 64 multiply-accumulates. Included by the files of two instruction sets that encode
// it differently; Dot is the instruction.
#pragma once

#include <immintrin.h>

#include "ops/gemm_s8.h"

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

template <typename Dot, size_t kRows, size_t kVectors>
inline void step(const uint8_t* lhs, size_t stride, const int8_t* rhs,
                 __m256i (&sum)[kRows][kVectors]) {
  __m256i rhs_i8x32[kVectors];
#pragma GCC unroll 2
  for (size_t v = 0; v < kVectors; ++v) {
    rhs_i8x32[v] = load(rhs + v * kNv * kKr);
    pin(rhs_i8x32[v]);
  }
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const __m256i lhs_u8x32 = broadcast_quad(lhs + i * stride);
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = Dot()(sum[i][v], lhs_u8x32, rhs_i8x32[v]);
      pin(sum[i][v]);
    }
  }
}

template <typename Dot, size_t kRows, size_t kVectors>
void tile(const GemmS8Params& params) {
  __m256i sum[kRows][kVectors];
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v)
      sum[i][v] =
          params.accumulate ? load(params.dst + (i * kVectors + v) * kNv) : _mm256_setzero_si256();
  const uint8_t* lhs = static_cast<const uint8_t*>(params.lhs);
  const int8_t* rhs = static_cast<const int8_t*>(params.rhs);
  constexpr size_t kStep = kVectors * kNv * kKr;
  size_t p = params.k;
  for (; p >= 2 * kKr; p -= 2 * kKr, lhs += 2 * kKr, rhs += 2 * kStep) {
    step<Dot>(lhs, params.lhs_stride, rhs, sum);
    step<Dot>(lhs + kKr, params.lhs_stride, rhs + kStep, sum);
  }
  if (p > 0) step<Dot>(lhs, params.lhs_stride, rhs, sum);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v)
      _mm256_store_si256(reinterpret_cast<__m256i*>(params.dst + (i * kVectors + v) * kNv),
                         sum[i][v]);
}

template <typename Dot, size_t kVectors>
void rows(const GemmS8Params& params) {
  switch (params.m) {
    case 1: return tile<Dot, 1, kVectors>(params);
    case 2: return tile<Dot, 2, kVectors>(params);
    case 3: return tile<Dot, 3, kVectors>(params);
    case 4: return tile<Dot, 4, kVectors>(params);
    case 5: return tile<Dot, 5, kVectors>(params);
    default: return tile<Dot, 6, kVectors>(params);
  }
}

template <typename Dot>
void gemm_6x16(const GemmS8Params& params) {
  params.n > kNv ? rows<Dot, 2>(params) : rows<Dot, 1>(params);
}

}  // namespace
}  // namespace lepton
