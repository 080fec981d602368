// A 12x32 tile: twenty-four accumulators, two registers of rhs, one broadcast of lhs. For each p
// two loads of the panel and twelve broadcasts feed twenty-four FMAs. The limit is the two FMA
// pipes: twelve cycles a step, 32 multiply-accumulates a cycle. Fewer rows run the same code with
// fewer accumulators, so every element is the same chain of FMAs whatever the tile's height.
#include <immintrin.h>

#include "ops/gemm_f32.h"

namespace lepton {
namespace {

constexpr size_t kNr = 32;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators.
inline void pin(__m512& v) { asm volatile("" : "+v"(v)); }

template <size_t kRows>
inline void step(const float* lhs, size_t stride, const float* rhs, __m512 (&sum)[kRows][2]) {
  __m512 rhs0_f32x16 = _mm512_load_ps(rhs);
  __m512 rhs1_f32x16 = _mm512_load_ps(rhs + 16);
  pin(rhs0_f32x16);
  pin(rhs1_f32x16);
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const __m512 lhs_f32x16 = _mm512_set1_ps(lhs[i * stride]);
    sum[i][0] = _mm512_fmadd_ps(lhs_f32x16, rhs0_f32x16, sum[i][0]);
    sum[i][1] = _mm512_fmadd_ps(lhs_f32x16, rhs1_f32x16, sum[i][1]);
    pin(sum[i][0]);
    pin(sum[i][1]);
  }
}

template <size_t kRows>
void tile(const GemmF32Params& params) {
  __m512 sum[kRows][2];
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    const float* const dst = params.dst + i * kNr;
    sum[i][0] = params.accumulate ? _mm512_load_ps(dst) : _mm512_setzero_ps();
    sum[i][1] = params.accumulate ? _mm512_load_ps(dst + 16) : _mm512_setzero_ps();
  }
  const float* lhs = params.lhs;
  const float* rhs = params.rhs;
  const float* next = params.prefetch == nullptr ? rhs : params.prefetch;
  for (size_t p = params.k; p > 0; --p, ++lhs, rhs += kNr, next += params.prefetch_step) {
    _mm_prefetch(next, _MM_HINT_T1);
    step<kRows>(lhs, params.lhs_stride, rhs, sum);
  }
#pragma GCC unroll 12
  for (size_t i = 0; i < kRows; ++i) {
    _mm512_store_ps(params.dst + i * kNr, sum[i][0]);
    _mm512_store_ps(params.dst + i * kNr + 16, sum[i][1]);
  }
}

}  // namespace

void gemm_f32_12x32_avx512(const GemmF32Params& params) {
  switch (params.m) {
    case 1: return tile<1>(params);
    case 2: return tile<2>(params);
    case 3: return tile<3>(params);
    case 4: return tile<4>(params);
    case 5: return tile<5>(params);
    case 6: return tile<6>(params);
    case 7: return tile<7>(params);
    case 8: return tile<8>(params);
    case 9: return tile<9>(params);
    case 10: return tile<10>(params);
    case 11: return tile<11>(params);
    default: return tile<12>(params);
  }
}

}  // namespace lepton
