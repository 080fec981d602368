// A 12x32 tile: twenty-four accumulators, two registers of rhs, one broadcast of a pair of lhs. For
// each pair of p twelve broadcasts and two loads feed twenty-four vdpbf16ps, each two products a
// lane. It flushes subnormal operands and results to zero, whatever MXCSR says.
#include <immintrin.h>

#include "cpu/rows.h"
#include "ops/gemm_bf16.h"

namespace lepton {
namespace {

constexpr size_t kNr = 32;

// Keeps a value in its register at this point: GCC would hoist broadcasts and spill accumulators.
inline void pin(__m512& v) { asm volatile("" : "+v"(v)); }

inline __m512i load_pairs(const uint16_t* p) { return _mm512_loadu_si512(p); }
inline __m512 dot(__m512 sum, __m512i lhs, __m512i rhs) {
  return _mm512_dpbf16_ps(sum, (__m512bh)lhs, (__m512bh)rhs);
}

template <size_t kRows>
void tile(const GemmBf16PairsParams& params) {
  __m512 sum[kRows][2];
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
    for (size_t v = 0; v < 2; ++v)
      sum[i][v] =
          params.accumulate ? _mm512_load_ps(params.dst + i * kNr + v * 16) : _mm512_setzero_ps();
  const uint16_t* rhs = params.rhs;
  for (size_t p = 0; p < params.k; p += 2, rhs += 2 * kNr) {
    const __m512i left_bf16x32 = load_pairs(rhs), right_bf16x32 = load_pairs(rhs + kNr);
#pragma GCC unroll 12
    for (size_t i = 0; i < kRows; ++i) {
      int pair;
      __builtin_memcpy(&pair, params.lhs + i * params.lhs_stride + p, sizeof pair);
      const __m512i lhs_bf16x32 = _mm512_set1_epi32(pair);
      sum[i][0] = dot(sum[i][0], lhs_bf16x32, left_bf16x32);
      sum[i][1] = dot(sum[i][1], lhs_bf16x32, right_bf16x32);
      pin(sum[i][0]);
      pin(sum[i][1]);
    }
  }
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i)
    for (size_t v = 0; v < 2; ++v) _mm512_store_ps(params.dst + i * kNr + v * 16, sum[i][v]);
}

}  // namespace

void gemm_bf16_12x32c2_avx512bf16(const GemmBf16PairsParams& params) {
  with_rows<12>(params.m, [&](auto rows) { tile<rows>(params); });
}

}  // namespace lepton
