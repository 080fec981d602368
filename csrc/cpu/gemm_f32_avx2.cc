// A 6x16 tile: twelve accumulators, two registers of rhs, one broadcast of lhs. For each p two
// loads of the panel and six broadcasts straight from the lhs rows feed twelve FMAs. The limit is
// the two FMA pipes: six cycles a step, 16 multiply-accumulates a cycle. Fewer rows run the same
// code with fewer accumulators, so every element is the same chain of FMAs whatever the tile's
// height.
#include <immintrin.h>

#include "ops/gemm_f32.h"

namespace lepton {
namespace {

constexpr size_t kNr = 16;

// Keeps a value in its register at this point: without it GCC hoists every broadcast of a step
// above the arithmetic and spills accumulators, which halves the rate.
inline void pin(__m256& v) { asm volatile("" : "+x"(v)); }

template <size_t kRows>
inline void step(const float* lhs, size_t stride, const float* rhs, __m256 (&sum)[kRows][2]) {
  __m256 rhs0_f32x8 = _mm256_load_ps(rhs);
  __m256 rhs1_f32x8 = _mm256_load_ps(rhs + 8);
  pin(rhs0_f32x8);
  pin(rhs1_f32x8);
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const __m256 lhs_f32x8 = _mm256_broadcast_ss(lhs + i * stride);
    sum[i][0] = _mm256_fmadd_ps(lhs_f32x8, rhs0_f32x8, sum[i][0]);
    sum[i][1] = _mm256_fmadd_ps(lhs_f32x8, rhs1_f32x8, sum[i][1]);
    pin(sum[i][0]);
    pin(sum[i][1]);
  }
}

template <size_t kRows>
void tile(const GemmF32Params& params) {
  __m256 sum[kRows][2];
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    const float* const dst = params.dst + i * kNr;
    sum[i][0] = params.accumulate ? _mm256_load_ps(dst) : _mm256_setzero_ps();
    sum[i][1] = params.accumulate ? _mm256_load_ps(dst + 8) : _mm256_setzero_ps();
  }
  const float* lhs = params.lhs;
  const float* rhs = params.rhs;
  const float* next = params.prefetch == nullptr ? rhs : params.prefetch;
  for (size_t p = params.k; p > 0; --p, ++lhs, rhs += kNr, next += params.prefetch_step) {
    _mm_prefetch(next, _MM_HINT_T1);
    step<kRows>(lhs, params.lhs_stride, rhs, sum);
  }
#pragma GCC unroll 6
  for (size_t i = 0; i < kRows; ++i) {
    _mm256_store_ps(params.dst + i * kNr, sum[i][0]);
    _mm256_store_ps(params.dst + i * kNr + 8, sum[i][1]);
  }
}

}  // namespace

void gemm_f32_6x16_avx2(const GemmF32Params& params) {
  switch (params.m) {
    case 1: return tile<1>(params);
    case 2: return tile<2>(params);
    case 3: return tile<3>(params);
    case 4: return tile<4>(params);
    case 5: return tile<5>(params);
    default: return tile<6>(params);
  }
}

}  // namespace lepton
